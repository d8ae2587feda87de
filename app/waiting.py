"""Waiting until a position can be read: one look for all who wait, however many they are.

Whoever waits costs a place in a map. One task looks at what they wait for: when it is told that
something has moved, when somebody has joined, and now and then by itself, since other processes
write, too; never more often than every `LEAST_SECONDS`. Of those whose waiting has an end a few are
let go after each look: answered all at once, hundreds would keep everybody else waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from typing import Final, Generic, NamedTuple, TypeVar

from eventstore.errors import LogUnavailable
from eventstore.types import Position

P = TypeVar("P")

MOST: Final = 500
"""Who may wait at once: each holds a connection, and the last of them is let go a second late."""
AT_ONCE: Final = 10
"""Who is let go after one look: what they then ask for takes about as long as the next pause."""
LEAST_SECONDS: Final = 0.02
"""Between two looks."""
MOST_SECONDS: Final = 0.1
"""Between two looks while nothing is told."""


class TooManyWait(Exception):
    """`MOST` wait already."""


class _Waiter(NamedTuple, Generic[P]):
    place: P
    position: int
    deadline: float


class Waiting(Generic[P]):
    """Those who wait for positions at some places (a log, read models). Of one event loop."""

    def __init__(
        self,
        look: Callable[[frozenset[P]], Mapping[P, Position]],
        readers: Executor,
    ) -> None:
        """Ask `look`, on a thread of `readers`, where each of some places is."""
        self._look = look
        self._readers = readers
        self._waiting: dict[asyncio.Future[bool], _Waiter[P]] = {}
        self._bell = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = False
        self._watch: asyncio.Task[None] | None = None
        self.refused = 0
        """How many could not wait, for there were too many."""

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def tell(self) -> None:
        """Say that something has moved. From any thread; costs nothing while nobody waits."""
        if not self._waiting or self._told or self._loop is None:
            return
        self._told = True
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._bell.set)

    async def until(self, place: P, position: int, seconds: float) -> bool:
        """Return True when a place has reached a position, False if it has not after `seconds`.

        Where many wait it may take a little longer, to let them go one after another.
        Raises `TooManyWait`, and whatever `look` raises.
        """
        if len(self._waiting) >= MOST:
            self.refused += 1
            raise TooManyWait
        self._loop = asyncio.get_running_loop()
        end: asyncio.Future[bool] = self._loop.create_future()
        self._waiting[end] = _Waiter(place, position, self._loop.time() + seconds)
        self._bell.set()  # it may have moved since the caller looked
        if self._watch is None or self._watch.done():
            self._watch = self._loop.create_task(self._keep_looking())
        try:
            return await end
        finally:
            self._waiting.pop(end, None)

    async def close(self) -> None:
        """Send away whoever waits."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        self._fail(LogUnavailable("the bot is being closed"))

    async def _keep_looking(self) -> None:
        """Look until nobody waits."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            with suppress(TimeoutError):
                async with asyncio.timeout(MOST_SECONDS):
                    await self._bell.wait()
            self._bell.clear()  # before the look: what moves from now on is told again
            self._told = False
            places = frozenset(waiter.place for waiter in self._waiting.values())
            try:
                found = await loop.run_in_executor(self._readers, self._look, places)
            except Exception as error:  # noqa: BLE001 - theirs to tell, each to whoever asked
                self._fail(error)
                return
            self._let_go(found, loop.time())
            await asyncio.sleep(LEAST_SECONDS)

    def _let_go(self, found: Mapping[P, Position], now: float) -> None:
        """End the waiting of some of those who need not wait longer, first come first."""
        gone = 0
        for end, (place, position, deadline) in self._waiting.items():
            reached = place in found and found[place] >= position
            if end.done() or not (reached or now >= deadline):
                continue
            if gone == AT_ONCE:
                self._bell.set()  # the others are next
                return
            end.set_result(reached)
            gone += 1

    def _fail(self, error: Exception) -> None:
        for end in self._waiting:
            if not end.done():
                end.set_exception(error)
