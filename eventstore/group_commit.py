"""Group commit: many callers, one thread, one transaction, one fsync.

Whatever is waiting when the thread comes round is committed together, and its callers are
answered together: one wake-up of their event loop a batch. Nobody waits for a batch to fill.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from eventstore.errors import LogUnavailable, OutcomeUnknown, QueueFull

Q = TypeVar("Q")
R = TypeVar("R")
Commit = Callable[[Sequence[Q]], Sequence[R | Exception]]
_Answerable = asyncio.Future[R] | Future[R]


class GroupCommit(Generic[Q, R]):
    """Feeds requests to `commit` in batches, in the order in which they were submitted.

    `commit` runs on one thread of its own and returns one answer for each request, an
    exception meaning that this caller fails. An exception *raised* by it fails the batch.
    """

    def __init__(
        self,
        commit: Commit[Q, R],
        *,
        name: str,
        capacity: int = 10_000,
        max_batch: int = 512,
    ) -> None:
        """Start the thread. At most `capacity` requests wait; the next gets `QueueFull`."""
        self._commit = commit
        self._capacity = capacity
        self._max_batch = max_batch
        self._queue: SimpleQueue[tuple[Q, _Answerable[R]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many requests are not answered yet."""
        return self._waiting

    def submit(self, request: Q) -> asyncio.Future[R]:
        """Queue a request from the running event loop; the future resolves when it is durable.

        Raises `QueueFull` or `LogUnavailable` (closed) without queueing anything.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._enqueue(request, future)
        return future

    def submit_blocking(self, request: Q) -> R:
        """Queue a request from a thread without an event loop and wait for its answer."""
        future: Future[R] = Future()
        self._enqueue(request, future)
        return future.result()

    def close(self) -> None:
        """Commit what is waiting, answer it, and stop the thread. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _enqueue(self, request: Q, future: _Answerable[R]) -> None:
        with self._lock:
            if self._closed:
                msg = "the log is closed: this process is shutting down"
                raise LogUnavailable(msg)
            if self._waiting >= self._capacity:
                raise QueueFull(self._waiting)
            self._waiting += 1
            self._queue.put((request, future))

    def _run(self) -> None:
        open_ = True
        while open_:
            first = self._queue.get()
            batch = [] if first is None else [first]
            open_ = first is not None
            while len(batch) < self._max_batch:
                try:
                    item = self._queue.get_nowait()
                except Empty:
                    break
                if item is None:
                    open_ = False
                else:
                    batch.append(item)
            if batch:
                self._answer(batch)

    def _answer(self, batch: list[tuple[Q, _Answerable[R]]]) -> None:
        answers: Sequence[R | Exception]
        try:
            answers = self._commit([request for request, _ in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, its callers must hear of it
            answers = [error] * len(batch)
        if len(answers) != len(batch):
            msg = f"{len(batch)} requests got {len(answers)} answers: nobody knows whose"
            answers = [OutcomeUnknown(msg)] * len(batch)
        with self._lock:
            self._waiting -= len(batch)
        loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[R], R | Exception]]] = {}
        for (_, future), answer in zip(batch, answers, strict=True):
            if isinstance(future, asyncio.Future):
                loops.setdefault(future.get_loop(), []).append((future, answer))
            elif isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        for loop, pairs in loops.items():
            try:
                loop.call_soon_threadsafe(_resolve, pairs)
            except RuntimeError:
                # The loop was closed while its request was on the way to the disk: what was
                # committed stays committed, and there is nobody left to tell.
                continue


def _resolve(pairs: list[tuple[asyncio.Future[R], R | Exception]]) -> None:
    for future, answer in pairs:
        if future.done():  # its caller was cancelled; what was committed stays committed
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
