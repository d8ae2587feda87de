"""Whose turn it is: never early, one at a time each, and so many at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.conversation import dispatcher as module
from app.conversation.dispatcher import Dispatcher
from app.conversation.slots import Slots
from eventstore.types import Micros, StreamName
from tests.conformance.stores import START, FakeClock

SECOND = 1_000_000
ANA, BEN, EVA = (StreamName(f"user/{name}") for name in ("ana", "ben", "eva"))


class Office:
    """A dispatcher whose work is begun and ended by the test."""

    def __init__(self, at_once: int = 10) -> None:
        self.clock = FakeClock()
        self.begun: list[StreamName] = []
        self.after: list[StreamName] = []
        self._ends: dict[StreamName, asyncio.Future[None]] = {}
        self.dispatcher = Dispatcher(
            self._work, now=self.clock, slots=Slots(at_once).share(), after=self.after.append
        )
        self._running = asyncio.ensure_future(self.dispatcher.run())

    async def _work(self, stream: StreamName) -> None:
        self.begun.append(stream)
        self._ends[stream] = asyncio.get_running_loop().create_future()
        await self._ends[stream]

    def put(self, stream: StreamName, seconds: float | None = 0) -> None:
        due_at = None if seconds is None else int(self.clock.now + seconds * SECOND)
        self.dispatcher.put(stream, due_at)

    async def end(self, stream: StreamName, error: Exception | None = None) -> None:
        if error is None:
            self._ends[stream].set_result(None)
        else:
            self._ends[stream].set_exception(error)
        await self.passes()

    async def passes(self, seconds: float = 0) -> None:
        """Let time go by, and everything happen that can."""
        self.clock.move(int(seconds * SECOND))
        self.dispatcher._wake.set()
        for _ in range(10):
            await asyncio.sleep(0)

    async def close(self) -> None:
        self._running.cancel()
        await self.dispatcher.drain(0)
        await asyncio.gather(self._running, return_exceptions=True)


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    office = Office()
    yield office
    await office.close()


async def test_nobody_is_visited_before_their_time(office: Office) -> None:
    office.put(ANA, 5)
    await office.passes(4.999)
    assert office.begun == []
    await office.passes(0.001)
    assert office.begun == [ANA]


async def test_whoever_is_due_first_is_visited_first(office: Office) -> None:
    office.put(ANA, 3)
    office.put(BEN, 2)
    office.put(EVA, 1)
    await office.passes(3)
    assert office.begun == [EVA, BEN, ANA]


async def test_a_new_time_takes_the_place_of_the_old_one(office: Office) -> None:
    office.put(ANA, 1)
    office.put(ANA, 5)
    office.put(BEN, 5)
    office.put(BEN, 1)
    await office.passes(1)
    assert office.begun == [BEN]
    await office.passes(4)
    assert office.begun == [BEN, ANA]


async def test_whoever_has_nothing_open_any_more_is_not_visited(office: Office) -> None:
    office.put(ANA, 1)
    office.put(ANA, None)
    await office.passes(2)
    assert office.begun == []
    assert office.dispatcher.waiting == 0


async def test_nobody_is_visited_twice_at_once(office: Office) -> None:
    office.put(ANA)
    await office.passes()
    office.put(ANA)
    await office.passes(1)
    assert office.begun == [ANA]
    await office.end(ANA)
    assert office.after == [ANA], "what is open is looked up after the visit"


async def test_only_so_many_are_visited_at_once() -> None:
    office = Office(at_once=2)
    for stream in (ANA, BEN, EVA):
        office.put(stream)
    await office.passes()
    assert office.begun == [ANA, BEN]
    assert office.dispatcher.running == 2
    await office.end(ANA)
    assert office.begun == [ANA, BEN, EVA]
    await office.close()


async def test_a_visit_that_fails_is_repeated_but_not_at_once(office: Office) -> None:
    office.put(ANA)
    await office.passes()
    await office.end(ANA, OSError("no space left"))
    await office.passes(module.AFTER_FAILURE / SECOND - 0.001)
    assert office.begun == [ANA]
    await office.passes(0.001)
    assert office.begun == [ANA, ANA]


async def test_the_first_visit_is_not_slept_through(office: Office) -> None:
    """An earlier time wakes whoever sleeps until a later one."""
    office.put(ANA, 3600)
    for _ in range(5):
        await asyncio.sleep(0)
    office.put(BEN, 0)
    for _ in range(10):
        await asyncio.sleep(0)
    assert office.begun == [BEN]


async def test_closing_starts_nothing_more_and_lets_what_runs_end(office: Office) -> None:
    office.put(ANA)
    await office.passes()
    draining = asyncio.ensure_future(office.dispatcher.drain(10))
    await office.passes()
    office.put(BEN)
    await office.passes(1)
    assert not draining.done()
    await office.end(ANA)
    await draining
    assert office.begun == [ANA]


async def test_times_that_change_all_day_take_no_more_memory(office: Office) -> None:
    for number in range(10_000):
        office.dispatcher.put(ANA, START + 3600 * SECOND + number)
    assert len(office.dispatcher._heap) < 100
    assert office.dispatcher.waiting == 1
    assert Micros(office.dispatcher._heap[-1][0]) <= START + 3600 * SECOND + 10_000
