"""The to-do list's place on disk: what is written, and what becomes of it when it is damaged."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.conversation.todo_checkpoint import TodoCheckpoint
from eventstore.types import StreamName
from tests.unit.conversation.library import (
    ANA,
    BEN,
    note,
)
from tests.unit.conversation.lists import BOOKS, House, Process


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
