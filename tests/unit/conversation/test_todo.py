"""Who waits for an answer: derived from the log, exact across checkpoints, restarts and losses.

A book here is open while its last note is "open".
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.aggregates.user import User
from app.aggregates.user_state import UserState
from app.conversation.agenda import Open
from app.conversation.repository import Repository
from app.conversation.stretches import Stretches
from app.conversation.todo import TodoList
from app.conversation.todo_checkpoint import TodoCheckpoint
from eventstore.errors import LogUnavailable
from eventstore.types import Position, Recorded, StreamName
from tests.unit.conversation.library import (
    ANA,
    BEN,
    Library,
    Notes,
    Shelf,
    long_life,
    note,
)

Users = Repository[User, UserState]
BOOKS = [StreamName(f"user/{number}") for number in range(12)]


class Process:
    """One start of a to-do list, over a library that outlives it."""

    def __init__(self, library: Library, path: Path) -> None:
        self.library = library
        self.shelf: Shelf = library.shelf()
        self.checkpoint = TodoCheckpoint.owned(path)
        self.told: list[StreamName] = []
        self.todo = TodoList(
            users=cast("Users", self.shelf),
            log=library.log,
            readers=library.readers,
            checkpoint=self.checkpoint,
            tell=self._tell,
        )
        self.shelf.on_commit = lambda stream, state, *where: self.todo.committed(
            stream, cast("UserState", state), *where
        )

    def _tell(self, stream: StreamName, state: UserState) -> Open:
        self.told.append(stream)
        notes = cast("Notes", state)
        last = notes[-1] if notes else "closed"
        return "work" if last == "open" else "record" if last == "quiet" else "nothing"

    @property
    def open(self) -> set[StreamName]:
        """What the list holds."""
        return set(self.todo.streams())

    async def follow(self) -> None:
        """Follow the log to its end."""
        while await self.todo._step():
            pass


class House:
    """A library, and processes that come and go."""

    def __init__(self, folder: Path) -> None:
        self.library = Library(folder)
        self.path = folder / "todo.db"
        self._processes: list[Process] = []

    async def start(self) -> Process:
        process = Process(self.library, self.path)
        self._processes.append(process)
        await process.todo.start()
        return process

    def die(self, process: Process) -> None:
        """End a process without a word."""
        process.checkpoint.close()
        self._processes.remove(process)

    def really_open(self) -> set[StreamName]:
        """What the log says."""
        return {
            info.name
            for info in self.library.log.streams("user/")
            if self.library.texts(info.name)[-1:] == ("open",)
        }

    def close(self) -> None:
        for process in self._processes:
            process.checkpoint.close()
        self.library.close()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


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


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), max_size=30), st.integers(0, 40))
def test_a_stretch_is_followed_to_its_end_and_no_further(
    appends: list[tuple[int, int]], after: int
) -> None:
    ours, stretches, end = set[int](), Stretches(), 0
    for others, size in appends:
        first, end = end + others + 1, end + others + size
        ours.update(range(first, end + 1))
        stretches.add(Position(first), Position(end))
    assert stretches.end_of(Position(after)) == next(
        n - 1 for n in count(after + 1) if n not in ours
    )


def test_positions_that_come_out_of_their_order_are_not_noted() -> None:
    stretches = Stretches()
    for first, last in ((5, 6), (1, 2), (6, 7), (7, 8)):
        stretches.add(Position(first), Position(last))
    assert [stretches.end_of(Position(n)) for n in (0, 4)] == [0, 8]


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


async def test_a_checkpoint_in_the_middle_of_a_look_forgets_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await house.start()
    for stream in BOOKS:
        await first.shelf.record(stream, note("open"))
    await first.follow()
    await first.todo.save()
    house.die(first)
    second = Process(house.library, house.path)
    look, reached = second.shelf.look, asyncio.Event()

    async def stuck(stream: StreamName) -> object:
        if stream == sorted(BOOKS)[5]:
            reached.set()
            await asyncio.get_running_loop().create_future()
        return await look(stream)

    monkeypatch.setattr(second.shelf, "look", stuck)
    starting = asyncio.create_task(second.todo.start())
    await reached.wait()
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await second.todo.save()
    second.checkpoint.close()
    third = await house.start()
    await third.follow()
    assert third.open == set(BOOKS)


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


async def test_a_checkpoint_is_written_only_if_something_changed(house: House) -> None:
    process = await house.start()
    await process.shelf.record(ANA, note("open"))
    await process.follow()
    await process.todo.save()
    before = process.checkpoint._connection.total_changes
    await process.todo.save()
    assert process.checkpoint._connection.total_changes == before


async def test_after_the_first_checkpoint_only_what_moved_is_written(house: House) -> None:
    process = await house.start()
    for stream in BOOKS:
        await process.shelf.record(stream, note("open"))
    await process.follow()
    await process.todo.save()
    written: list[str] = []
    process.checkpoint._connection.set_trace_callback(written.append)
    await process.shelf.record(BOOKS[0], note("closed"))
    await process.shelf.record(BOOKS[1], note("quiet"))
    await process.follow()
    await process.todo.save()
    told = "\n".join(written)
    assert all((stream in told) == (stream in BOOKS[:2]) for stream in BOOKS[:10])
    assert "SELECT stream FROM" not in told
    listed = process.checkpoint.load()
    assert (set(listed.work), listed.records) == (set(BOOKS[2:]), [BOOKS[1]])


async def test_after_a_checkpoint_that_failed_everything_is_written(house: House) -> None:
    process = await house.start()
    await process.shelf.record(ANA, note("open"))
    await process.follow()
    await process.todo.save()
    await process.shelf.record(BEN, note("open"))
    await process.follow()
    process.checkpoint._connection.execute("PRAGMA busy_timeout=0")
    with closing(sqlite3.connect(house.path, isolation_level=None)) as another:
        another.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            await process.todo.save()
    await process.todo.save()
    assert set(process.checkpoint.load().work) == {ANA, BEN}


async def test_more_than_a_page_is_followed(house: House) -> None:
    long_life(house.library.log, 11_000)
    process = await house.start()
    assert await process.todo._step()
    assert process.todo.position < 11_000
    await process.follow()
    assert process.todo.position == 11_000


async def test_a_damaged_checkpoint_is_put_aside_and_everybody_is_looked_at(house: House) -> None:
    first = await house.start()
    await first.shelf.record(ANA, note("open"))
    house.die(first)
    damage = random.Random(1).randbytes(8192)
    house.path.write_bytes(damage)
    with capture_logs() as logs:
        second = await house.start()
    assert [line["event"] for line in logs] == ["DERIVED_FILE_DAMAGED"]
    (kept,) = house.path.parent.glob("todo.db.damaged-*")
    assert kept.read_bytes() == damage
    await second.follow()
    assert second.open == {ANA}


def test_who_only_reads_a_damaged_checkpoint_leaves_it_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "todo.db"
    path.write_bytes(b"x" * 8192)
    with pytest.raises(sqlite3.DatabaseError):
        TodoCheckpoint(path)
    assert [found.name for found in tmp_path.iterdir()] == ["todo.db"]


def copied(checkpoint: TodoCheckpoint) -> bytes:
    """Bring all of the write-ahead log into the file; return what is in it then."""
    checkpoint._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    checkpoint._contents.note()
    return checkpoint._path.read_bytes()


LOSSES = ["deleted", "replaced", "a directory", "an older one in it", "cut", "its -wal alone"]


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_checkpoint_lost_while_running_is_written_again_whole(
    house: House, loss: str
) -> None:
    first = await house.start()
    await first.shelf.record(ANA, note("open"))
    await first.follow()
    older = house.path.read_bytes()
    await first.todo.save()
    if loss == "an older one in it":
        house.path.write_bytes(older)
    elif loss == "cut":
        os.truncate(house.path, 4096)
    elif loss == "its -wal alone":
        house.path.with_name("todo.db-wal").unlink()
    else:
        house.path.unlink()
    if loss == "a directory":
        house.path.mkdir()
    if loss == "replaced":
        house.path.write_bytes(b"x" * 8192)
    await first.todo.save()
    house.die(first)
    checkpoint = TodoCheckpoint(house.path)
    listed = checkpoint.load()
    checkpoint.close()
    assert listed.cursor is not None
    assert set(listed.work) == house.really_open()


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


async def test_a_list_of_a_release_that_knew_no_records_is_made_again(house: House) -> None:
    first = await house.start()
    await first.shelf.record(ANA, note("quiet"))
    await first.follow()
    await first.todo.save()
    house.die(first)
    with sqlite3.connect(house.path) as older:
        older.execute("DROP TABLE todo_records")
    second = await house.start()
    await second.follow()
    assert second.todo.unrecorded() == [ANA]


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
