"""When is whose turn: a heap of due times, and a bounded number of turns at work.

The to-do list is derived from the log and may be stale: a turn that is looked at too early is put
back, for its claim computes the due time again from the stream itself.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable

import structlog

from app.conversation.slots import Share
from eventstore.types import Micros, StreamName

_log = structlog.get_logger(__name__)
MICRO = 1_000_000
AFTER_FAILURE = 5 * MICRO
"""µs before a visit that ended with an error is repeated."""

Work = Callable[[StreamName], Awaitable[None]]


class Dispatcher:
    """Starts `work(stream)` when a stream is due, in a slot of `slots`, one per stream."""

    def __init__(
        self,
        work: Work,
        *,
        now: Callable[[], Micros],
        slots: Share,
        after: Callable[[StreamName], None],
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        """Nothing is started before `run`; `after` is called when a visit has ended.

        Nothing is started, either, while `ready()` is False: call `wake` when that changes.
        """
        self._ready = ready
        self._after = after
        self._work = work
        self._now = now
        self._slots = slots
        self._heap: list[tuple[int, StreamName]] = []
        self._due: dict[StreamName, int] = {}
        self._running: dict[StreamName, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._closing = False
        slots.wake = self._wake.set

    @property
    def waiting(self) -> int:
        """How many streams have a due time."""
        return len(self._due)

    @property
    def running(self) -> int:
        """How many turns are at work."""
        return len(self._running)

    def put(self, stream: StreamName, due_at: int | None) -> None:
        """Note when a stream is due; None takes it off the list."""
        if due_at is None:
            self._due.pop(stream, None)
            return
        if self._due.get(stream) == due_at:
            return
        self._due[stream] = due_at
        heapq.heappush(self._heap, (due_at, stream))
        if len(self._heap) > 64 + 4 * len(self._due):
            self._compact()
        if self._heap[0][1] == stream:
            self._wake.set()

    def wake(self) -> None:
        """Look again at what is due."""
        self._wake.set()

    def is_running(self, stream: StreamName) -> bool:
        """Tell whether this process is at work on the stream."""
        return stream in self._running

    async def run(self) -> None:
        """Start turns as they fall due, until cancelled."""
        while True:
            self._wake.clear()
            delay = self._start_due()
            try:
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def drain(self, seconds: float) -> None:
        """Stop starting turns and give the running ones some time to end."""
        self._closing = True
        self._slots.rest()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=seconds)
        late = list(self._running.values())
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _start_due(self) -> float | None:
        """Start what is due; return the seconds until the next one, None if there is none."""
        while self._heap and not self._closing:
            due_at, stream = self._heap[0]
            if self._due.get(stream) != due_at:
                heapq.heappop(self._heap)
                continue
            wait = due_at - self._now()
            if wait > 0:
                self._slots.rest()
                return wait / MICRO
            if not self._ready():
                self._slots.rest()
                return None  # whoever makes us ready wakes us
            if stream in self._running:
                self._forget(stream)  # what it leaves is told when it has ended
            elif self._slots.take():
                self._forget(stream)
                self._start(stream)
            else:
                return None  # a free slot wakes us
        self._slots.rest()
        return None

    def _forget(self, stream: StreamName) -> None:
        heapq.heappop(self._heap)
        del self._due[stream]

    def _start(self, stream: StreamName) -> None:
        task = asyncio.ensure_future(self._work(stream))
        self._running[stream] = task
        task.add_done_callback(lambda done: self._finished(stream, done))

    def _finished(self, stream: StreamName, task: asyncio.Task[None]) -> None:
        del self._running[stream]
        self._slots.give_back()
        if not task.cancelled() and task.exception() is not None:
            # Whatever it was (a full disk, a missing key), asking at once again would not help.
            _log.error("TURN_FAILED", stream=stream, exc_info=task.exception())
            self.put(stream, self._now() + AFTER_FAILURE)
        else:
            self._after(stream)
        self._wake.set()

    def _compact(self) -> None:
        self._heap = [(due_at, stream) for stream, due_at in self._due.items()]
        heapq.heapify(self._heap)
