"""`sqlite3` by hand: the same table and indexes, one commit a turn, nothing else.

No triggers, no stream heads, no hand-over between processes: the floor that no event store can go
below with one commit a turn.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

Row = tuple[int, int, int, str, int, bytes | None, bytes, bytes]

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    position     INTEGER PRIMARY KEY,
    stream_id    INTEGER NOT NULL,
    version      INTEGER NOT NULL,
    type         TEXT    NOT NULL,
    recorded_at  INTEGER NOT NULL,
    key          BLOB,
    append_id    BLOB    NOT NULL,
    state        BLOB    NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS events_stream_version ON events (stream_id, version);
CREATE UNIQUE INDEX IF NOT EXISTS events_key ON events (key) WHERE key IS NOT NULL;
"""
INSERT = "INSERT INTO events VALUES (?,?,?,?,?,?,?,?)"
SCAN = """
SELECT position, stream_id, version, type, recorded_at, key, append_id, state
  FROM events WHERE position > ? ORDER BY position LIMIT ?
"""


def connect(path: Path) -> sqlite3.Connection:
    """Open a file in WAL mode with `synchronous=FULL`, as durable as the log."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


class RawLog:
    """A table of events."""

    def __init__(self, path: Path, past: Path | None = None) -> None:
        """Make the table; `past` is a log whose events are copied into it first."""
        self._connection = connect(path)
        self._connection.executescript(SCHEMA)
        if past is not None:
            self._connection.execute("ATTACH ? AS past", (str(past),))
            self._connection.execute("INSERT INTO events SELECT * FROM past.events")
            self._connection.execute("DETACH past")
        last = self._connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()
        self.position: int = last[0]

    def append(self, rows: Sequence[Row]) -> None:
        """Commit the rows of one turn."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(INSERT, rows)
        self._connection.execute("COMMIT")
        self.position = rows[-1][0]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
