"""Whose name and labels are still to be read again: `hooks.db`, durable before a hook is answered.

Beside the log, not in it: that somebody asked is no fact about a person, and most of it changes
nothing. A row goes when what it asks for is done, and is found again after a kill. It holds
pseudonyms alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import sqlite_utils

from app.derived import opened
from eventstore.errors import LogUnavailable
from eventstore.types import StreamName


class Asked:
    """One bot's requests, by person; a later one has a higher number. Any thread."""

    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises `sqlite3.Error` if it cannot be used."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = Lock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._connection.execute("PRAGMA busy_timeout=10000")
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            columns = {"stream": str, "number": int}
            table = sqlite_utils.Database(self._connection).table("asked")
            table.create(columns, pk="stream", not_null=set(columns), if_not_exists=True)
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def owned(cls, path: Path) -> Asked:
        """Open or create the file for its owner: a damaged one is put aside for a new one."""
        return opened(path, cls)

    def all(self) -> dict[StreamName, int]:
        """Return what is not done yet."""
        with self._used() as db:
            rows = db.execute("SELECT stream, number FROM asked ORDER BY number").fetchall()
        return {StreamName(stream): number for stream, number in rows}

    def put(self, stream: StreamName, number: int) -> None:
        """Make a request durable. Raises `LogUnavailable`."""
        with self._used() as db:
            db.execute(
                "INSERT INTO asked VALUES (?, ?)"
                " ON CONFLICT (stream) DO UPDATE SET number = max(number, excluded.number)",
                (stream, number),
            )

    def done(self, stream: StreamName, number: int) -> None:
        """Forget a person's requests up to this one. Raises `LogUnavailable`."""
        with self._used() as db:
            db.execute("DELETE FROM asked WHERE stream = ? AND number <= ?", (stream, number))

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _used(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                yield self._connection
        except sqlite3.Error as error:
            msg = f"hooks.db cannot be used: {error}"
            raise LogUnavailable(msg) from error
