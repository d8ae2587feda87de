"""What is peculiar to `keys.db`, the file: its owner's alone, and no downgrade."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from eventstore.errors import KeyringError, LogUnavailable
from eventstore.keystore import SqliteKeyStore
from eventstore.types import Micros


def test_the_file_and_what_sqlite_puts_beside_it_are_its_owner_s_alone(tmp_path: Path) -> None:
    store = SqliteKeyStore(tmp_path / "keys.db")
    with store.transaction():
        store.put_secret("check", b"wrapped")
    files = list(tmp_path.glob("keys.db*"))
    assert len(files) == 3
    for file in files:
        assert file.stat().st_mode & 0o777 == 0o600
    store.close()


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "keys.db"
    path.touch(mode=0o644)
    SqliteKeyStore(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.db"
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(KeyringError, match="made by a newer release"):
        SqliteKeyStore(path)


def test_a_file_of_the_first_release_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "keys.db"
    store = SqliteKeyStore(path)
    store.put_key("person", 1, b"wrapped", Micros(0))
    store.close()
    older = sqlite3.connect(path)
    older.executescript("DROP TABLE destructions; PRAGMA user_version = 1;")
    older.close()
    store = SqliteKeyStore(path)
    assert store.key("person", 1) == b"wrapped"
    assert store.destructions() == 0
    store.close()


def test_a_full_disk_and_a_file_that_is_no_database_are_unavailable(tmp_path: Path) -> None:
    store = SqliteKeyStore(tmp_path / "keys.db")
    ((pages,),) = store._ask("PRAGMA page_count")
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LogUnavailable, match="full"), store.transaction():
        store.put_key("person", 1, bytes(100_000), Micros(0))
    assert not store.holds_people()
    store.close()
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"no database" * 1000)
    with pytest.raises(LogUnavailable, match="not a database"):
        SqliteKeyStore(garbage)


@pytest.mark.parametrize("gone", ["", "-wal", "-shm"])
def test_nobody_gets_a_key_in_a_file_that_was_taken_away(tmp_path: Path, gone: str) -> None:
    """What is sealed with such a key could not be read after the next start."""
    path = tmp_path / "keys.db"
    store = SqliteKeyStore(path)
    with store.transaction():
        store.put_key("a", 1, b"wrapped", Micros(1))
    Path(f"{path}{gone}").rename(tmp_path / "kept")
    with pytest.raises(LogUnavailable, match="not the file that it was"), store.transaction():
        store.put_key("b", 1, b"wrapped", Micros(1))
    (tmp_path / "kept").rename(f"{path}{gone}")
    with store.transaction():
        store.put_key("c", 1, b"wrapped", Micros(1))
    store.close()
