"""What the file of keys promises: whole transactions, its owner's alone, no downgrade."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventstore.errors import KeyringError, LogUnavailable
from eventstore.keystore import SqliteKeyStore
from eventstore.types import Micros


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteKeyStore]:
    store = SqliteKeyStore(tmp_path / "keys.db")
    yield store
    store.close()


def fill(store: SqliteKeyStore) -> None:
    store.put_identity(b"hash", "person", b"box")
    store.put_key("person", 1, b"wrapped", Micros(0))
    msg = "half way"
    raise ConnectionError(msg)


def test_a_transaction_that_fails_leaves_nothing_behind(store: SqliteKeyStore) -> None:
    with pytest.raises(ConnectionError), store.transaction():
        fill(store)
    assert not store.holds_people()
    with store.transaction():  # the lock is free again
        store.put_key("person", 1, b"wrapped", Micros(0))
    assert store.key("person", 1) == b"wrapped"


def test_the_file_and_what_sqlite_puts_beside_it_are_its_owner_s_alone(
    tmp_path: Path, store: SqliteKeyStore
) -> None:
    with store.transaction():
        store.put_secret("check", b"wrapped")
    files = list(tmp_path.glob("keys.db*"))
    assert len(files) == 3
    for file in files:
        assert file.stat().st_mode & 0o777 == 0o600


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


def test_erased_rows_are_not_reported_as_wiped_while_somebody_still_reads_them(
    tmp_path: Path, store: SqliteKeyStore
) -> None:
    store.put_key("person", 1, b"a data key, wrapped", Micros(0))
    reader = sqlite3.connect(tmp_path / "keys.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM keys").fetchall()
    store.erase("person")
    store._connection.execute("PRAGMA busy_timeout = 0")
    with pytest.raises(KeyringError, match="being read"):
        store.wipe()
    reader.close()
    store.wipe()
    for file in tmp_path.glob("keys.db*"):
        assert b"a data key, wrapped" not in file.read_bytes()


def test_while_another_process_writes_the_keys_nothing_is_written_and_all_is_read(
    tmp_path: Path, store: SqliteKeyStore
) -> None:
    store._connection.execute("PRAGMA busy_timeout = 0")
    writer = sqlite3.connect(tmp_path / "keys.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogUnavailable, match="locked"), store.transaction():
        pytest.fail("the lock was not taken")
    with pytest.raises(LogUnavailable, match="locked"):
        store.put_key("person", 1, b"wrapped", Micros(0))
    assert store.key("person", 1) is None
    writer.close()
    store.put_key("person", 1, b"wrapped", Micros(0))


def test_a_full_disk_and_a_file_that_is_no_database_are_unavailable(
    tmp_path: Path, store: SqliteKeyStore
) -> None:
    ((pages,),) = store._ask("PRAGMA page_count")
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LogUnavailable, match="full"), store.transaction():
        store.put_key("person", 1, bytes(100_000), Micros(0))
    assert not store.holds_people()
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"no database" * 1000)
    with pytest.raises(LogUnavailable, match="not a database"):
        SqliteKeyStore(garbage)
