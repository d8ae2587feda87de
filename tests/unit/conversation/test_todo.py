"""Who waits for an answer: derived from the log, exact across restarts and losses."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from eventstore.errors import LogUnavailable
from eventstore.types import Position, Recorded, StreamName
from tests.unit.conversation.library import (
    ANA,
    BEN,
    Library,
    long_life,
    note,
)
from tests.unit.conversation.lists import BOOKS, House


async def test_what_was_open_is_open_after_a_restart_without_reading_all_again(
    house: House,
) -> None:
    first = await house.start()
    await first.shelf.record(ANA, note("open"))
    await first.shelf.record(BEN, note("open"))
    await first.shelf.record(BEN, note("closed"))
    await first.follow()
    await first.todo.save()
    house.die(first)
    second = await house.start()
    assert second.open == {ANA}
    assert second.told == [ANA], "nobody else was looked at"
    assert not await second.todo._step()


async def test_what_came_after_the_checkpoint_is_found(house: House) -> None:
    first = await house.start()
    await first.shelf.record(ANA, note("open"))
    await first.follow()
    await first.todo.save()
    await first.shelf.record(ANA, note("closed"))
    await first.shelf.record(BEN, note("open"))
    house.die(first)
    second = await house.start()
    await second.follow()
    assert second.open == {BEN}


async def test_without_a_checkpoint_everybody_is_looked_at(house: House) -> None:
    first = await house.start()
    for stream in BOOKS:
        await first.shelf.record(stream, note("open"))
    await first.shelf.record(BOOKS[0], note("closed"))
    house.die(first)
    house.path.unlink()
    second = await house.start()
    await second.follow()
    assert second.open == house.really_open() == set(BOOKS[1:])


async def test_what_another_process_appends_is_seen(house: House) -> None:
    process = await house.start()
    await process.shelf.record(ANA, note("open"))
    await process.follow()
    other = house.library.shelf()
    await other.record(ANA, note("closed"))
    await other.record(BEN, note("open"))
    await process.follow()
    assert process.open == {BEN}


async def test_what_this_process_commits_is_not_read_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await house.start()
    log, windows = house.library.log, []
    read = log.read

    def noting(*, after: Position, up_to: Position, **rest: Any) -> list[Recorded]:  # noqa: ANN401 - whatever
        windows.append((after, up_to))
        return read(after=after, up_to=up_to, **rest)

    monkeypatch.setattr(log, "read", noting)
    for stream in BOOKS:
        await process.shelf.record(stream, note("open"))
    await process.follow()
    assert not windows
    assert process.todo.position == len(BOOKS)
    await house.library.shelf().record(BEN, note("open"))  # in between, by another process
    await process.shelf.record(BOOKS[0], note("closed"))
    await process.follow()
    assert windows == [(len(BOOKS), len(BOOKS) + 2)]
    await process.todo.save()
    house.die(process)
    again = await house.start()
    await again.follow()
    assert again.open == {*BOOKS[1:], BEN} == house.really_open()


async def test_who_is_mentioned_while_our_own_append_fails_is_looked_at_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.library.shelf().record(ANA, note("closed"))
    shelf, store = house.library.held()
    with monkeypatch.context() as here:
        here.setattr(house.library, "shelf", lambda: shelf)
        process = await house.start()
    await process.follow()
    assert process.open == set()
    ours = asyncio.create_task(shelf.record(ANA, note("closed")))
    await asyncio.to_thread(store.gate.wait_for_commit)
    await house.library.shelf().record(ANA, note("open"))  # another process, meanwhile
    following = asyncio.create_task(process.follow())
    subscription = process.todo._subscription
    assert subscription is not None
    while subscription.position < 2:  # noqa: ASYNC110 - it has read of it …
        await asyncio.sleep(0)
    for _ in range(50):  # … and looks
        await asyncio.sleep(0)
    store.fail_next = LogUnavailable("the writer was killed")
    store.gate.open()
    with pytest.raises(LogUnavailable):
        await ours
    await following
    await process.todo.save()
    assert process.open == {ANA} == house.really_open()
    house.die(process)
    assert (await house.start()).open == {ANA}


async def test_a_stream_that_cannot_be_read_stays_on_the_list_and_holds_up_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = house.library.shelf()
    for stream in BOOKS:
        await writer.record(stream, note("open"))
    process = await house.start()
    look = process.shelf.look

    async def sometimes(stream: StreamName) -> object:
        if stream == BOOKS[3]:
            raise LogUnavailable  # a bad sector
        return await look(stream)

    monkeypatch.setattr(process.shelf, "look", sometimes)
    await process.follow()
    assert process.open == set(BOOKS)
    assert BOOKS[3] not in process.told
    await process.todo.save()
    house.die(process)
    again = await house.start()
    assert again.open == set(BOOKS)


async def test_a_log_that_was_put_back_is_read_from_its_start(house: House) -> None:
    first = await house.start()
    await first.shelf.record(ANA, note("open"))
    await first.follow()
    await first.todo.save()
    house.die(first)
    house.library.factory.start_epoch()
    second = await house.start()
    await second.follow()
    assert second.open == {ANA}
    assert second.todo.position == 1


async def test_a_place_that_is_saved_when_the_log_has_gone_back_is_not_believed(
    house: House, tmp_path: Path
) -> None:
    first = await house.start()
    await first.shelf.record(ANA, note("open"))
    await first.follow()
    other = Library(tmp_path / "behind")  # where the address leads now; it has gone on since
    await other.shelf().record(BEN, note("open"))
    first.todo._log = other.log
    await first.todo.save()
    house.die(first)
    house.library.close()
    house.library = other
    second = await house.start()
    await second.follow()
    assert BEN in second.open


async def test_more_than_a_page_is_followed(house: House) -> None:
    long_life(house.library.log, 11_000)
    process = await house.start()
    assert await process.todo._step()
    assert process.todo.position < 11_000
    await process.follow()
    assert process.todo.position == 11_000


async def test_what_waits_for_a_record_alone_is_kept_apart_and_looked_at_after_the_start(
    house: House,
) -> None:
    first = await house.start()
    await first.shelf.record(ANA, note("open"))
    await first.shelf.record(BEN, note("quiet"))
    assert (len(first.todo), first.todo.records) == (1, 1)
    await first.follow()
    await first.todo.save()
    house.die(first)
    second = await house.start()
    assert second.told == [ANA], "nobody waits for a record: the start does not"
    assert set(second.todo.unrecorded()) == {ANA, BEN}
    await second.todo.save()  # it must not forget those that were not looked at yet
    await second.todo._look_at_unseen()
    assert second.told == [ANA, BEN]
    await second.shelf.record(BEN, note("closed"))
    assert second.todo.records == 0
    await second.follow()
    await second.todo.save()
    house.die(second)
    assert (await house.start()).todo.unrecorded() == [ANA]


@pytest.mark.parametrize("seed", range(6))
async def test_after_any_history_of_restarts_the_list_is_what_the_log_says(
    house: House, seed: int
) -> None:
    rng = random.Random(seed)
    other = house.library.shelf()
    process = await house.start()
    for _ in range(120):
        match rng.choice(["ours", "ours", "theirs", "step", "save", "die", "lose"]):
            case "ours":
                await process.shelf.record(rng.choice(BOOKS), note(rng.choice(["open", "closed"])))
            case "theirs":
                await other.record(rng.choice(BOOKS), note(rng.choice(["open", "closed"])))
            case "step":
                await process.todo._step()
            case "save":
                await process.todo.save()
            case "die":
                house.die(process)
                process = await house.start()
            case _ if rng.random() < 0.1:
                house.die(process)
                house.path.unlink()
                process = await house.start()
    await process.follow()
    assert process.open == house.really_open()
    assert len(process.todo) == len(process.open)
