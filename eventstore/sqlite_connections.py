"""Connections to a log on SQLite: durable, strict, and the library's pool of them.

WAL with `synchronous=FULL`: COMMIT returns when the events are on the disk. Statements are cached,
which the library's own connections do for one statement only.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any, Final

from eventsourcing.persistence import InterfaceError
from eventsourcing.sqlite import SQLiteConnection, SQLiteConnectionPool, SQLiteDatastore

from eventstore import sql
from eventstore.places import DatabaseFiles
from eventstore.types import Micros

SQL: Final = sql.load("sqlite.sql")
_BUSY_SECONDS = 10

FileId = tuple[int, int]
"""Device and inode."""


def system_clock() -> Micros:
    """Return this machine's time: the store's clock of an embedded log."""
    return Micros(time.time_ns() // 1000)


def connect(database: str, *, busy_seconds: float = _BUSY_SECONDS) -> sqlite3.Connection:
    """Open a connection that keeps the log's rules; `database` is a `file:` URI.

    Only the server's writer checkpoints, so that nobody else ever waits for one.
    """
    connection = sqlite3.connect(
        database,
        uri=True,
        timeout=busy_seconds,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        _use_wal(connection, time.monotonic() + busy_seconds)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA recursive_triggers=ON")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        # A statement of many rows notes what it changes, lest it fail half-way: not in a file.
        connection.execute("PRAGMA temp_store=MEMORY")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection, deadline: float) -> None:
    """Make a new file a WAL file. SQLite does not wait for others who do the same: we do."""
    while connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete":
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


class LogConnectionPool(SQLiteConnectionPool):
    """The library's pool over `connect`: its own connections cache one statement only.

    With a `home`, which file of which name it is, it opens no other one, and makes none: a
    connection is kept, and would go on in a stranger's file when ours has been put back.
    """

    def __init__(
        self,
        *,
        home: tuple[Path, FileId] | None = None,
        **options: Any,  # noqa: ANN401 - the library's signature
    ) -> None:
        """Take the library's options unchanged."""
        self._home = home
        super().__init__(**options)

    def _create_connection(self) -> SQLiteConnection:
        self._refuse_strangers()
        try:
            connection = connect(self.db_name, busy_seconds=self.lock_timeout or _BUSY_SECONDS)
        except sqlite3.Error as error:
            raise InterfaceError(error) from error
        try:
            self._refuse_strangers()
        except InterfaceError:
            connection.close()
            raise
        connection.row_factory = sqlite3.Row
        return SQLiteConnection(sqlite_conn=connection, max_age=self.max_age)

    def _refuse_strangers(self) -> None:
        if self._home is None:
            return
        path, file = self._home
        found = DatabaseFiles.of(path)
        if found is None or found[:2] != file:
            msg = f"{path} is not the file that it was: put that back"
            raise InterfaceError(msg)


class LogDatastore(SQLiteDatastore):
    """The library's datastore over `LogConnectionPool`."""

    def __init__(
        self,
        db_name: str,
        *,
        home: tuple[Path, FileId] | None = None,
        **options: Any,  # noqa: ANN401 - the library's signature
    ) -> None:
        """Take the library's options unchanged; `home` is the pool's."""
        super().__init__(db_name, **options)
        self.pool.close()
        self.pool = LogConnectionPool(
            home=home,
            db_name=db_name,
            lock_timeout=options.get("lock_timeout") or _BUSY_SECONDS,
            pool_size=options.get("pool_size", 5),
            max_overflow=options.get("max_overflow", 10),
            pool_timeout=options.get("pool_timeout", 5.0),
            max_age=options.get("max_age"),
            pre_ping=options.get("pre_ping", False),
        )
