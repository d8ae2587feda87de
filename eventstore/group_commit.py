"""Group commit: many callers, one thread, one transaction, one fsync.

Whatever is waiting when the thread comes round is committed together, and its callers are
answered together: one wake-up of their event loop a batch. Nobody waits for a batch to fill, but
the thread is woken when the event loop has come to the end of its round, not by the first request
in it: woken at once, it would take the interpreter's lock away from those who are about to submit,
and commit the first one alone.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Generic, TypeVar

from eventstore.errors import LogUnavailable, OutcomeUnknown, QueueFull

Q = TypeVar("Q")
R = TypeVar("R")
Commit = Callable[[Sequence[Q]], Sequence[R | Exception]]
Done = Callable[[R | Exception], None]
"""Takes the answer to a request; an exception means that it failed."""

CLOSED = "the log is closed: this process is shutting down"
_logger = logging.getLogger(__name__)


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
        self._queue: deque[tuple[Q, Done[R], asyncio.AbstractEventLoop | None]] = deque()
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

    def send(
        self, request: Q, done: Done[R], loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        """Queue a request from the running event loop; `done(answer)` is called from it, later.

        `loop` is that loop, if the caller knows it: Python finds it with a system call. Raises
        `QueueFull` or `LogUnavailable` (closed) without queueing anything.
        """
        loop = loop or asyncio.get_running_loop()
        self._enqueue(request, done, loop)
        if self._waking is not loop:
            self._waking = loop
            loop.call_soon(self._wake)

    def submit(self, request: Q) -> asyncio.Future[R]:
        """Do what `send` does; the future that is returned resolves with the answer."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self.send(request, partial(resolve, future), future.get_loop())
        return future

    def submit_blocking(self, request: Q) -> R:
        """Queue a request from a thread without an event loop and wait for its answer."""
        future: Future[R] = Future()
        self._enqueue(request, partial(_resolve_blocking, future), None)
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

    def _enqueue(self, request: Q, done: Done[R], loop: asyncio.AbstractEventLoop | None) -> None:
        with self._lock:
            if self._closed:
                raise LogUnavailable(CLOSED)
            if self._waiting >= self._capacity:
                raise QueueFull(self._waiting)
            self._waiting += 1
            self._queue.append((request, done, loop))

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

    def _take(self) -> list[tuple[Q, Done[R], asyncio.AbstractEventLoop | None]]:
        queue = self._queue
        return [queue.popleft() for _ in range(min(len(queue), self._max_batch))]

    def _answer(self, batch: list[tuple[Q, Done[R], asyncio.AbstractEventLoop | None]]) -> None:
        answers: Sequence[R | Exception]
        self._began = time.monotonic()
        try:
            answers = self._commit([request for request, _, _ in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, its callers must hear of it
            answers = [error] * len(batch)
        self._began = None
        if len(answers) != len(batch):
            msg = f"{len(batch)} requests got {len(answers)} answers: nobody knows whose"
            answers = [OutcomeUnknown(msg)] * len(batch)
        with self._lock:
            self._waiting -= len(batch)
        loops: dict[asyncio.AbstractEventLoop, list[tuple[Done[R], R | Exception]]] = {}
        for (_, done, loop), answer in zip(batch, answers, strict=True):
            if loop is None:
                done(answer)
            else:
                loops.setdefault(loop, []).append((done, answer))
        for loop, pairs in loops.items():
            try:
                loop.call_soon_threadsafe(tell, pairs)
            except RuntimeError:
                # The loop was closed while its request was on the way to the disk: what was
                # committed stays committed, and there is nobody left to tell.
                continue


def tell(pairs: Iterable[tuple[Done[R], R | Exception]]) -> None:
    """Give each its answer; one that fails to take it does not keep the others from theirs."""
    for done, answer in pairs:
        try:
            done(answer)
        except Exception:
            _logger.exception("an answer of the log was not taken")


def resolve(future: asyncio.Future[R], answer: R | Exception) -> None:
    """Resolve the future of a caller, unless that was cancelled: what is committed stays so."""
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _resolve_blocking(future: Future[R], answer: R | Exception) -> None:
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
