"""Files derived from the log: what was done to them beside SQLite is known, and made good."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.derived import Contents, Unusable, is_damaged, opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.db"


@pytest.fixture
def database(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connected(path)) as connection:
        yield connection


def connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS some (text)")
    return connection


def checkpoint(database: sqlite3.Connection) -> None:
    database.execute("INSERT INTO some VALUES ('more')")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def touched(path: Path) -> None:
    """Give the file another time, as everybody does who writes into it."""
    later = time.time_ns() + 1_000_000_000
    os.utime(path, ns=(later, later))


def test_a_directory_in_the_place_of_a_file_is_put_aside(path: Path) -> None:
    path.mkdir()
    (path / "kept").write_text("by somebody", "utf-8")
    with closing(opened(path, connected)) as database:
        checkpoint(database)
    assert path.is_file()
    (aside,) = path.parent.glob("some.db.damaged-*")
    assert (aside / "kept").read_text("utf-8") == "by somebody"


def test_a_file_that_cannot_be_opened_is_named_and_left_where_it_is(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere" / "some.db")
    with pytest.raises(Unusable, match=r"some\.db cannot be used .* let this user read") as error:
        opened(path, connected)
    assert path.is_symlink()
    assert not is_damaged(error.value)


def test_what_the_owner_writes_is_not_foreign(path: Path, database: sqlite3.Connection) -> None:
    contents = Contents(path)
    for _ in range(3):
        contents.compare()
        checkpoint(database)
        contents.note()
        assert not contents.are_foreign()


def test_what_was_written_into_the_file_by_another_way_is(
    path: Path, database: sqlite3.Connection
) -> None:
    contents = Contents(path)
    touched(path)
    contents.compare()
    checkpoint(database)
    contents.note()
    assert contents.are_foreign(), "the owner's next commit does not hide it"


def test_the_checkpoint_of_somebody_who_commits_is_not(path: Path, database: object) -> None:
    contents = Contents(path, calm_seconds=60)
    touched(path)
    assert not contents.are_foreign(others=1)
    path.write_bytes(path.read_bytes() + bytes(4096))
    assert not contents.are_foreign(others=1), "it may go on after the commit"
    suspicious = Contents(path)
    assert not suspicious.are_foreign(others=1)
    touched(path)
    assert suspicious.are_foreign(others=1)
