"""The log on SQLite: one file, one writer at a time, any number of readers.

The database itself refuses UPDATE, DELETE, REPLACE and a gap (triggers in `sql/sqlite.sql`).
Connections are `sqlite_connections`' affair, appending `sqlite_appends`'; reading is here.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from eventsourcing.persistence import ConnectionPoolClosedError, PersistenceError

from eventstore.errors import LogUnavailable
from eventstore.places import DatabaseFiles
from eventstore.queries import LogQueries, Values
from eventstore.sqlite_appends import SQLiteAppends
from eventstore.sqlite_connections import SQL, LogDatastore, connect, system_clock
from eventstore.sqlite_wal import PAGES
from eventstore.types import (
    Appended,
    AppendId,
    Clock,
    Micros,
    Position,
)

POLL_SECONDS: Final = 0.01
CACHE_KB: Final = 32 * 1024
"""Of whoever writes: the leaves of the index of keys are touched at random."""


class SQLiteLog(SQLiteAppends, LogQueries):
    """A `LogStore` in one SQLite file.

    `append_batch` belongs to one thread at a time; everything else is safe from any thread.
    `server` says that this process owns the file's WAL and checkpoints it.
    """

    _no_limit = -1

    def __init__(self, path: Path, *, clock: Clock = system_clock, server: bool = False) -> None:
        """Open or create the log. Raises `LogUnavailable` if the file cannot be used."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            database = f"file:{quote(str(path.resolve()))}"
            writer = connect(database)
            files = DatabaseFiles.of(path)
            home = None if files is None else (path, files[:2])
            self.datastore = LogDatastore(f"{database}?mode=rw", home=home)
            super().__init__(writer, clock)
            self._watcher = connect(database)
            if server:
                writer.execute(f"PRAGMA wal_autocheckpoint={PAGES}")
                writer.execute(f"PRAGMA cache_size=-{CACHE_KB}")
            if not self._has_schema():
                writer.executescript("BEGIN IMMEDIATE;" + SQL["schema"] + "COMMIT;")
            self._add_node_status()
        except (sqlite3.Error, PersistenceError) as error:
            msg = f"cannot open the log at {path}: {error}"
            raise LogUnavailable(msg) from error
        self._clock.observe(self.head().recorded_at)
        self._watch_lock = threading.Lock()

    def _has_schema(self) -> bool:
        query = "SELECT count(*) FROM sqlite_master WHERE name = 'streams_no_rename'"
        return bool(self._writer.execute(query).fetchone()[0])

    def _add_node_status(self) -> None:
        """Bring a log of an earlier release up to date; of two processes one is second."""
        has = SQL["has_node_status"]
        if self._writer.execute(has).fetchone()[0]:
            return
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            if not self._writer.execute(has).fetchone()[0]:
                self._writer.execute(SQL["add_node_status"])
        finally:
            self._writer.execute("COMMIT")

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Cursor]:
        try:
            with self.datastore.get_connection(commit=False) as connection:
                cursor = connection.cursor().sqlite_cursor
                cursor.row_factory = None
                try:
                    yield cursor
                finally:
                    cursor.close()
        except (sqlite3.Error, PersistenceError, ConnectionPoolClosedError) as error:
            msg = f"the log at {self.path} cannot be read: {error}"
            raise LogUnavailable(msg) from error

    def _ask(self, query: str, values: Values = ()) -> list[Any]:
        with self._read() as cursor:
            return cursor.execute(SQL[query], values).fetchall()

    def checkpoint(self) -> bool:
        """Bring all of the WAL into the file; return whether that was done. The writer's affair."""
        try:
            row = self._writer.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
        except sqlite3.Error:
            return False
        busy, pages, done = row
        return not busy and pages == done

    def now(self) -> Micros:
        """Return the store's time."""
        return self._clock.now()

    def observe(self, recorded_at: Micros) -> None:
        """Take note of an append that another process has made on this one's behalf."""
        self._clock.observe(recorded_at)

    def appended_since(self, position: Position) -> dict[AppendId, Appended]:
        """Return the appends after a position, by their ids. Raises `LogUnavailable`."""
        epoch = self.head().epoch
        rows = self._ask("select_append_ids", (position,))
        return {AppendId(row[0]): Appended(epoch, *row[1:]) for row in rows}

    def _ask_for_types(
        self, query: str, after: int, up_to: int, types: Sequence[str], *more: object
    ) -> list[Any]:
        text = SQL[query].replace("/*types*/", ",".join("?" * len(types)))
        with self._read() as cursor:
            return cursor.execute(text, (after, up_to, *types, *more)).fetchall()

    def stream_names(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return the names of streams by their numbers; both are for ever."""
        wanted = "[" + ",".join(map(str, numbers)) + "]"
        return dict(self._ask("select_stream_names", (wanted,)))

    def position_at(self, instant: Micros) -> Position:
        """Return the last position recorded at or before the instant; 0 if none.

        Times never decrease along the log, so a binary search needs no index.
        """
        with self._read() as cursor:
            low, high = 0, cursor.execute(SQL["select_head"]).fetchone()[1]
            while low < high:
                middle = (low + high + 1) // 2
                if cursor.execute(SQL["select_time"], (middle,)).fetchone()[0] <= instant:
                    low = middle
                else:
                    high = middle - 1
        return Position(low)

    def size(self) -> int:
        """Return the bytes of the database's pages, indexes included, wherever they are kept.

        A page that is still in the WAL counts once; the WAL itself does not.
        """
        with self._read() as cursor:
            pages, size = (
                int(cursor.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "page_size")
            )
        return pages * size

    def connections(self) -> int:
        """Return 0: an open file stays the same file."""
        return 0

    def watch(self) -> FileWatch:
        """Return what waits for news of the log."""
        self._changes()
        return FileWatch(self._changes)

    def _changes(self) -> int:
        """Return a number that changes when another connection or process has committed."""
        with self._watch_lock:
            try:
                return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])
            except sqlite3.Error as error:
                msg = f"the log at {self.path} cannot be read: {error}"
                raise LogUnavailable(msg) from error

    def skew(self) -> Micros:
        """Return by how much this node's clock is ahead of the store's: they are one."""
        return Micros(0)

    def close(self) -> None:
        """Close every connection. Idempotent."""
        with self._write_lock, self._watch_lock:
            self._writer.close()
            self._watcher.close()
        self.datastore.close()


class FileWatch:
    """Looks at the file's change counter every 10 ms. Any thread may wake it."""

    def __init__(self, changes: Callable[[], int]) -> None:
        """Take what tells the counter."""
        self._changes = changes
        self._seen: int | None = None
        self._hint = threading.Event()

    def wait(self, timeout: float) -> bool:
        """Return True when there may be news since the last time, False after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            change = self._changes()
            if change != self._seen:
                self._seen = change
                return True
            left = deadline - time.monotonic()
            if self._hint.wait(min(POLL_SECONDS, max(left, 0))):
                self._hint.clear()
                return True
            if left <= 0:
                return False

    def wake(self) -> None:
        """End the wait, or the next one."""
        self._hint.set()


__all__ = ["SQL", "LogDatastore", "SQLiteLog", "connect", "system_clock"]
