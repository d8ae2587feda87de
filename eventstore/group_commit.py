"""Group commit: many callers, one thread, one transaction, one fsync.

Whatever is waiting when the thread comes round is committed together, and its callers are
answered together: one wake-up of their event loop a batch. Nobody waits for a batch to fill, but
the thread is woken when the event loop has come to the end of its round, not by the first request
in it: woken at once, it would take the interpreter's lock away from those who are about to submit,
and commit the first one alone.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
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
        self._queue: deque[tuple[Q, _Answerable[R]]] = deque()
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._waking: asyncio.AbstractEventLoop | None = None
        """The loop that will wake the thread at the end of its round."""
        self._lock = threading.Lock()
        self._waiting = 0
        self._began: float | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many requests are not answered yet."""
        return self._waiting

    @property
    def busy_seconds(self) -> float:
        """For how long the batch in hand has been on its way; 0 if there is none."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    def submit(
        self, request: Q, loop: asyncio.AbstractEventLoop | None = None
    ) -> asyncio.Future[R]:
        """Queue a request from the running event loop; the future resolves when it is durable.

        `loop` is that loop, if the caller knows it: Python finds it with a system call. Raises
        `QueueFull` or `LogUnavailable` (closed) without queueing anything.
        """
        loop = loop or asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._enqueue(request, future)
        if self._waking is not loop:
            self._waking = loop
            loop.call_soon(self._wake)
        return future

    def submit_blocking(self, request: Q) -> R:
        """Queue a request from a thread without an event loop and wait for its answer."""
        future: Future[R] = Future()
        self._enqueue(request, future)
        self._wake()
        return future.result()

    def close(self) -> None:
        """Commit what is waiting, answer it, and stop the thread. Idempotent."""
        with self._lock:
            self._closed = True
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        self._waking = None
        self._wakes.put(None)

    def _enqueue(self, request: Q, future: _Answerable[R]) -> None:
        with self._lock:
            if self._closed:
                msg = "the log is closed: this process is shutting down"
                raise LogUnavailable(msg)
            if self._waiting >= self._capacity:
                raise QueueFull(self._waiting)
            self._waiting += 1
            self._queue.append((request, future))

    def _run(self) -> None:
        while True:
            self._wakes.get()
            closed = self._closed  # read first: nothing is queued after it
            while batch := self._take():
                self._answer(batch)
                if len(batch) < self._max_batch and not closed:
                    break  # whoever came meanwhile wakes us at the end of their round
            if closed:
                return

    def _take(self) -> list[tuple[Q, _Answerable[R]]]:
        queue = self._queue
        return [queue.popleft() for _ in range(min(len(queue), self._max_batch))]

    def _answer(self, batch: list[tuple[Q, _Answerable[R]]]) -> None:
        answers: Sequence[R | Exception]
        self._began = time.monotonic()
        try:
            answers = self._commit([request for request, _ in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, its callers must hear of it
            answers = [error] * len(batch)
        self._began = None
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
