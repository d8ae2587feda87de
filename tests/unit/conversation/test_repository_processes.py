"""Aggregates in memory, and what other processes append meanwhile."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.unit.conversation.library import (
    ANA,
    BEN,
    Library,
    Notes,
    look,
    note,
    noting_what_is_seen,
)


async def test_what_another_process_appended_is_seen_and_decided_upon(
    library: Library, told: list[Notes]
) -> None:
    ours, theirs = library.shelf(), library.shelf()
    ours.on_commit = lambda _, state, *_where: told.append(state)
    await ours.record(ANA, note("ours"))
    await theirs.record(ANA, note("theirs"))
    seen: list[Notes] = []
    assert await ours.record(ANA, noting_what_is_seen("last", seen)) == ("ours", "theirs", "last")
    assert seen == [("ours",), ("ours", "theirs")]
    assert told == [("ours",), ("ours", "theirs"), ("ours", "theirs", "last")]


async def test_a_decision_against_it_after_a_conflict_is_told_all_the_same(
    library: Library, told: list[Notes]
) -> None:
    ours, theirs = library.shelf(), library.shelf()
    await ours.record(ANA, look)
    await theirs.record(ANA, note("theirs"))
    ours.on_commit = lambda _, state, *_where: told.append(state)
    answer = await ours.record(ANA, lambda book: book.state or book.note("first"))
    assert answer == ("theirs",)
    assert told == [("theirs",)]


async def test_refreshing_sees_what_others_appended(library: Library) -> None:
    ours, theirs = library.shelf(), library.shelf()
    await ours.record(ANA, look)
    await theirs.record(ANA, note("theirs"))
    assert (await ours.look(ANA)).state == ()
    await ours.refresh(ANA)
    book = ours.peek(ANA)
    assert book is not None
    assert (book.state, book.version) == (("theirs",), 1)


@pytest.mark.parametrize("seed", range(3))
async def test_many_callers_in_two_processes_agree_with_a_replay(
    library: Library, seed: int
) -> None:
    rng = random.Random(seed)
    shelves = [library.shelf(), library.shelf()]
    streams = [ANA, BEN]

    async def caller(number: int) -> None:
        for step in range(6):
            shelf, stream = rng.choice(shelves), rng.choice(streams)
            text = f"{number}.{step}"
            how = rng.choice([shelf.record, shelf.decide])
            assert text in await how(stream, note(text))
            assert text in await shelf.decide(stream, look)

    callers = [asyncio.create_task(caller(number)) for number in range(12)]
    for task in rng.sample(callers, 2):
        asyncio.get_running_loop().call_later(0.002, task.cancel)
    await asyncio.gather(*callers, return_exceptions=True)
    assert not [t for t in callers if not t.cancelled() and t.exception()]
    for shelf in shelves:
        for stream in streams:
            await shelf.refresh(stream)
            assert await shelf.record(stream, look) == library.texts(stream)
    assert len(set(library.texts(ANA) + library.texts(BEN))) >= 60


async def test_after_a_restore_everything_is_read_again(library: Library) -> None:
    shelf = library.shelf()
    await shelf.record(ANA, note("one"))
    library.factory.start_epoch()
    assert await shelf.record(ANA, note("two")) == library.texts() == ("one", "two")


async def test_what_was_found_behind_the_log_is_not_taken_for_it_by_a_second_who_waited(
    library: Library,
) -> None:
    """Both waited for one load; the first met a conflict before the second went on."""
    ours, theirs = library.shelf(), library.shelf()
    await ours.record(ANA, look)
    cell = ours._cells[ANA]
    await theirs.record(ANA, note("theirs"))
    await ours.record(ANA, note("first"))  # a conflict: it was loaded anew
    late: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    late.set_result(cell)
    ours._cells.drop(ANA)
    ours._loading[ANA] = late  # type: ignore[assignment]
    seen: list[Notes] = []
    async with asyncio.timeout(10):
        await ours.decide(ANA, noting_what_is_seen("second", seen))
    assert seen[-1] == ("theirs", "first")
