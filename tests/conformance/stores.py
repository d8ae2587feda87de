"""What the suite asks of a store behind its back, and how SQLite does it.

A store joins by a subclass of `StoreFactory` and a name in `conftest.FACTORIES`. A factory is
small and can be pickled: other processes get it, and open the same log with it.
"""

from __future__ import annotations

import shutil
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from eventsourcing.persistence import AggregateRecorder, ApplicationRecorder

from eventstore.recorders import LogAggregateRecorder, LogApplicationRecorder
from eventstore.sqlite import LogDatastore, SQLiteLog, system_clock
from eventstore.store import LogStore
from eventstore.types import Clock, Micros

START = Micros(1_800_000_000_000_000)
"""The fake clock's first time, a day in January 2027."""


class FakeClock:
    """A clock that stands still, is moved by the test, and may be moved back."""

    def __init__(self, now: Micros = START) -> None:
        self.now = now

    def __call__(self) -> Micros:
        return self.now

    def move(self, micros: int) -> None:
        self.now = Micros(self.now + micros)


class Refused(Exception):
    """The database itself refused a statement."""


class Killed(BaseException):
    """What a process sees of its own kill -9: nothing. Passes every `except Exception`."""


class StoreFactory(ABC):
    """One log, empty at first, and as many stores over it as a test wants."""

    name: ClassVar[str]

    def __init__(self) -> None:
        self._opened: list[LogStore] = []

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": []}

    def open(self, *, clock: Clock | None = None, server: bool = False) -> LogStore:
        """Open one more store over this log, on its own clock unless the test holds one.

        The server's also looks after the files.
        """
        store = self._open(clock, server=server)
        self._opened.append(store)
        return store

    def reopen(self, store: LogStore, *, clock: Clock | None = None) -> LogStore:
        """Close a store and open another, as a restarted process would."""
        store.close()
        self._opened.remove(store)
        return self.open(clock=clock)

    def close(self) -> None:
        """Close whatever is still open."""
        for store in self._opened:
            store.close()
        self._opened.clear()

    @abstractmethod
    def _open(self, clock: Clock | None, *, server: bool) -> LogStore: ...

    @abstractmethod
    def tamper(self, statement: str, values: Sequence[object] = ()) -> None:
        """Run SQL as any client could, with no setting of ours. Raises `Refused`."""

    @abstractmethod
    def everything(self) -> list[tuple[object, ...]]:
        """All rows of the log's tables, for showing that nothing changed."""

    @abstractmethod
    def damage(self) -> list[str]:
        """What the database's own check of its files finds wrong."""

    def start_epoch(self) -> None:
        """Do what a restore does last."""
        self.tamper("UPDATE head SET epoch = epoch + 1")

    @abstractmethod
    def copy(self, name: str) -> None:
        """Keep a copy of the log as it is now."""

    @abstractmethod
    def put_back(self, name: str) -> None:
        """Put a copy in the log's place, as an operator with `cp` would. Stores are closed."""

    @abstractmethod
    def commits(self, store: LogStore) -> list[str]:
        """A list that grows by one whenever the store commits."""

    @abstractmethod
    def break_commit(
        self, store: LogStore, how: Literal["before", "after", "for good"], error: BaseException
    ) -> None:
        """Let the next COMMIT raise: before it was done, after it, or after it and never mend."""

    @abstractmethod
    def fill_disk(self, store: LogStore) -> None:
        """Leave the store no room to write."""

    @abstractmethod
    def make_room(self, store: LogStore) -> None:
        """Give the room back."""

    @abstractmethod
    def commit_error(self) -> Exception:
        """The error that a lost disk or connection raises."""

    @abstractmethod
    def library_environment(self) -> dict[str, str]:
        """The settings that put an application of the `eventsourcing` library on this log."""

    @abstractmethod
    def aggregate_recorder(self) -> AggregateRecorder:
        """The library's aggregate recorder over this store."""

    @abstractmethod
    def application_recorder(self) -> ApplicationRecorder:
        """The library's application recorder over this log."""


class SQLiteFactory(StoreFactory):
    """Logs in one SQLite file."""

    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "log.db"

    @property
    def uri(self) -> str:
        return f"file:{self.path}"

    def _open(self, clock: Clock | None, *, server: bool) -> LogStore:
        return SQLiteLog(self.path, clock=clock or system_clock, server=server)

    def tamper(self, statement: str, values: Sequence[object] = ()) -> None:
        bare = sqlite3.connect(self.path, isolation_level=None)
        try:
            bare.execute(statement, tuple(values))
        except sqlite3.Error as error:
            raise Refused(str(error)) from error
        finally:
            bare.close()

    def everything(self) -> list[tuple[object, ...]]:
        bare = sqlite3.connect(self.path)
        try:
            return [
                (table, *row)
                for table in ("head", "streams", "events")
                for row in bare.execute(f"SELECT * FROM {table} ORDER BY 1")
            ]
        finally:
            bare.close()

    def damage(self) -> list[str]:
        bare = sqlite3.connect(self.path)
        try:
            found = [row[0] for row in bare.execute("PRAGMA integrity_check")]
        finally:
            bare.close()
        return [] if found == ["ok"] else found

    def copy(self, name: str) -> None:
        # Through SQLite: a plain read of a live file may miss what is in the WAL, and closing it
        # would drop this process's locks.
        source, target = sqlite3.connect(self.path), sqlite3.connect(self.path.with_name(name))
        source.backup(target)
        source.close()
        target.close()

    def put_back(self, name: str) -> None:
        if self._opened:
            msg = "close the stores first: a live file must not be replaced"
            raise AssertionError(msg)
        for ending in ("-wal", "-shm"):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        shutil.copy(self.path.with_name(name), self.path)

    def commits(self, store: LogStore) -> list[str]:
        seen: list[str] = []

        def trace(statement: str) -> None:
            if statement == "COMMIT":
                seen.append(statement)

        _sqlite(store)._writer.set_trace_callback(trace)
        return seen

    def break_commit(
        self, store: LogStore, how: Literal["before", "after", "for good"], error: BaseException
    ) -> None:
        log: Any = _sqlite(store)
        log._writer = _BrokenConnection(log._writer, how, error)

    def fill_disk(self, store: LogStore) -> None:
        writer = _sqlite(store)._writer
        pages = writer.execute("PRAGMA page_count").fetchone()[0]
        writer.execute(f"PRAGMA max_page_count={pages}")

    def make_room(self, store: LogStore) -> None:
        _sqlite(store)._writer.execute("PRAGMA max_page_count=1073741823")

    def commit_error(self) -> Exception:
        return sqlite3.OperationalError("disk I/O error")

    def library_environment(self) -> dict[str, str]:
        return {"PERSISTENCE_MODULE": "eventstore.recorders", "SQLITE_DBNAME": self.uri}

    def aggregate_recorder(self) -> AggregateRecorder:
        recorder = LogAggregateRecorder(LogDatastore(self.uri))
        recorder.create_table()
        return recorder

    def application_recorder(self) -> ApplicationRecorder:
        recorder = LogApplicationRecorder(LogDatastore(self.uri))
        recorder.create_table()
        return recorder


def _sqlite(store: LogStore) -> SQLiteLog:
    assert isinstance(store, SQLiteLog)
    return store


class _BrokenConnection:
    """The writer's connection, on a disk that fails at the next COMMIT."""

    def __init__(self, connection: sqlite3.Connection, how: str, error: BaseException) -> None:
        self._connection = connection
        self._how = how
        self._error = error
        self._broke = False

    def execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        if self._broke and self._how == "for good":
            raise self._error
        if statement != "COMMIT" or self._broke:
            return self._connection.execute(statement, tuple(values))
        self._broke = True
        if self._how != "before":
            self._connection.execute(statement)
        raise self._error

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def close(self) -> None:
        self._connection.close()
