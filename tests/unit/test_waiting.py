"""Waiting for a position: exact, cheap for many, and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from app import waiting
from app.waiting import TooManyWait, Waiting
from eventstore.errors import LogUnavailable
from eventstore.types import Position

LONG = 60.0


class Places:
    """Where some places are; they move when a test says so."""

    def __init__(self) -> None:
        self.at: dict[str, int] = {"log": 0, "views": 0}
        self.looks = 0
        self.asked: set[str] = set()
        self.error: Exception | None = None

    def look(self, places: frozenset[str]) -> dict[str, Position]:
        self.looks += 1
        self.asked |= places
        if self.error is not None:
            raise self.error
        return {place: Position(self.at[place]) for place in places}


@pytest.fixture
def places() -> Places:
    return Places()


@pytest.fixture
async def waits(places: Places) -> AsyncIterator[Waiting[str]]:
    with ThreadPoolExecutor(1) as readers:
        opened = Waiting(places.look, readers)
        yield opened
        await opened.close()


async def begun(
    waits: Waiting[str], *positions: int, place: str = "log"
) -> list[asyncio.Task[bool]]:
    """Let somebody wait for each position."""
    before = len(waits)
    tasks = [asyncio.create_task(waits.until(place, at, LONG)) for at in positions]
    await asyncio.sleep(0)  # each has come to where it waits
    assert len(waits) == before + len(positions)
    return tasks


async def test_each_goes_on_when_its_position_is_there_and_not_before(
    waits: Waiting[str], places: Places
) -> None:
    first, second = await begun(waits, 1, 2)
    (elsewhere,) = await begun(waits, 1, place="views")
    places.at["log"] = 1
    waits.tell()
    assert await first
    assert not second.done()
    assert not elsewhere.done()
    places.at |= {"log": 2, "views": 5}
    waits.tell()
    assert await second
    assert await elsewhere
    assert len(waits) == 0


async def test_what_moved_before_somebody_joined_is_seen_though_nobody_tells(
    waits: Waiting[str], places: Places
) -> None:
    places.at["log"] = 7
    assert await waits.until("log", 7, LONG)


async def test_hundreds_cost_no_more_looks_than_one(waits: Waiting[str], places: Places) -> None:
    tasks = await begun(waits, *range(1, 301))
    before = places.looks
    places.at["log"] = 300
    waits.tell()
    assert all(await asyncio.gather(*tasks))
    assert places.looks - before <= 300 / waiting.AT_ONCE + 3
    assert places.asked == {"log"}


async def test_some_are_let_go_at_a_time_those_who_came_first_before_others(
    waits: Waiting[str], places: Places
) -> None:
    tasks = await begun(waits, *[1] * (waiting.AT_ONCE + 1))
    places.at["log"] = 1
    waits.tell()
    await tasks[0]
    assert [task.done() for task in tasks].count(True) <= waiting.AT_ONCE
    assert not tasks[-1].done()
    assert await tasks[-1]


async def test_it_has_an_end(waits: Waiting[str]) -> None:
    assert not await waits.until("log", 1, 0.0)
    assert len(waits) == 0


async def test_too_many_are_sent_away_and_counted(
    waits: Waiting[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MOST", 2)
    tasks = await begun(waits, 1, 2)
    with pytest.raises(TooManyWait):
        await waits.until("log", 1, LONG)
    assert waits.refused == 1
    tasks[0].cancel()
    await asyncio.gather(tasks[0], return_exceptions=True)
    await begun(waits, 3)  # whoever went away leaves room


async def test_what_cannot_be_looked_at_is_told_to_all_and_looked_at_again_for_others(
    waits: Waiting[str], places: Places
) -> None:
    tasks = await begun(waits, 1, 2)
    places.error = LogUnavailable("not now")
    waits.tell()
    for task in tasks:
        with pytest.raises(LogUnavailable):
            await task
    places.error = None
    places.at["log"] = 1
    assert await waits.until("log", 1, LONG)


async def test_who_waits_is_sent_away_when_the_bot_is_closed(waits: Waiting[str]) -> None:
    (task,) = await begun(waits, 1)
    await waits.close()
    with pytest.raises(LogUnavailable):
        await task
