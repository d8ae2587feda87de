"""What is promised of SQLite only: its settings, its files, its caches."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import eventstore.sqlite_appends
from eventstore.errors import LogUnavailable
from eventstore.sqlite import SQLiteLog, connect
from eventstore.store import Beat
from eventstore.types import Micros, NewEvent
from tests.conformance.appends import append, check, event, whole, write

MEGABYTE = NewEvent("Said", b"." * 1_000_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bot" / "log.db"


def test_every_connection_syncs_each_commit_and_keeps_the_triggers_awake(path: Path) -> None:
    log = SQLiteLog(path)
    with log.datastore.get_connection(commit=True) as pooled:
        for connection in (log._writer, log._watcher, pooled._sqlite_conn):
            settings = [
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "synchronous", "recursive_triggers")
            ]
            assert settings == ["wal", 2, 1]
    log.close()


@pytest.mark.parametrize("server", [True, False])
def test_only_the_server_s_writer_checkpoints(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, server: bool
) -> None:
    monkeypatch.setattr("eventstore.sqlite.PAGES", 4_000)
    log = SQLiteLog(path, server=server)
    for n in range(20):
        write(log, append(f"user/{n}", 0, MEGABYTE))
        log.head()
    assert (path.stat().st_size > 10_000_000) == server
    log.close()


def test_a_commit_over_more_streams_than_are_remembered_forgets_no_version(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventstore.sqlite_appends, "_STREAM_CACHE", 2)
    log = SQLiteLog(path)
    write(log, *(append(f"user/{n % 5}", n // 5) for n in range(20)))
    write(log, *(append(f"user/{n % 5}", 4 + n // 5) for n in range(20)))
    assert len(log._streams) <= 2
    check(whole(log))
    log.close()


class Counting:
    """A connection that remembers what it was asked to execute."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.asked: list[str] = []

    def execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        self.asked.append(statement.split(maxsplit=1)[0])
        return self._connection.execute(statement, tuple(values))

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)


def test_a_commit_is_few_statements_however_many_events_it_holds(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = SQLiteLog(path)
    write(log, append("user/ana"))
    counting = Counting(log._writer)
    monkeypatch.setattr(log, "_writer", counting)
    turns = (append("user/ana", 1 + 4 * n, event(keyed=f"{n}"), *[event()] * 3) for n in range(32))
    write(log, *turns)
    assert counting.asked == ["BEGIN", "UPDATE", "INSERT", "COMMIT"]
    log.close()


def test_a_path_that_can_hold_no_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "text.db").write_text("not a database" * 100)
    for name in ("folder.db", "text.db"):
        with pytest.raises(LogUnavailable, match=name):
            SQLiteLog(tmp_path / name)


def test_a_new_log_waits_for_a_process_that_is_making_it_too(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.mkdir()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(time, "sleep", lambda _: other.execute("ROLLBACK"))
    log = SQLiteLog(path)
    assert not other.in_transaction
    write(log, append())
    other.close()
    log.close()


def test_a_writer_waits_for_another_s_transaction_no_longer_than_it_is_told(path: Path) -> None:
    log = SQLiteLog(path)
    other = connect(f"file:{path}")
    other.execute("BEGIN IMMEDIATE")
    log._writer.execute("PRAGMA busy_timeout=20")
    [refused] = log.append_batch([append()])
    assert isinstance(refused, LogUnavailable)
    other.execute("ROLLBACK")
    write(log, append())
    other.close()
    log.close()


def test_a_log_of_an_earlier_release_learns_what_nodes_say_of_themselves(path: Path) -> None:
    SQLiteLog(path).close()
    bare = sqlite3.connect(path)
    bare.execute("ALTER TABLE nodes DROP COLUMN status")
    bare.execute("INSERT INTO nodes VALUES ('node', 'first', '1.0', 5, 7)")
    bare.commit()
    bare.close()
    for _ in range(2):
        log = SQLiteLog(path)
        assert log.nodes() == [Beat("node", "first", "1.0", Micros(5), Micros(7))]
        log.close()
