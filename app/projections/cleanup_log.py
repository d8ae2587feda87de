"""The clean-up log (B3): each run of the clean-up, and each conversation that it left.

What was cleaned is counted from the threads that were left (`ThreadReset`, reason `cleanup`),
never from what a run says of itself, so that both agree after a crash in the middle of a run. A
reset names its run as its correlation; one that names none is a run of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import ClassVar, Final

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from app.aggregates.cleanup_events import CleanupRecorded
from app.aggregates.events import ThreadReset
from app.projections.model import ReadModel, Seen, Session
from app.projections.people import PREFIX

_RECORD: Final = """
INSERT INTO cleanups (id, began_at, recorded_at, token_limit, "by") VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET recorded_at = excluded.recorded_at,
       token_limit = excluded.token_limit, "by" = excluded."by"
"""
_migrations = Migrations("cleanup_log")


@_migrations()
def tables(db: Database) -> None:
    """Make the tables, and the view under the name that M002 gives it, the newest run first."""
    db.table("cleanups").create(
        {
            "id": str,
            "began_at": int,
            "recorded_at": int,
            "token_limit": int,
            "by": str,
        },
        pk="id",
        not_null={"id", "began_at"},
        strict=True,
    )
    db.table("cleaned_threads").create(
        {"position": int, "cleanup": str, "user": str, "thread": str, "tokens": int, "at": int},
        pk="position",
        not_null={"position", "cleanup", "user", "tokens", "at"},
        strict=True,
    )
    db.table("cleaned_threads").create_index(["cleanup"])
    db.execute(
        """
        CREATE VIEW ThreadCleanupLog AS
        SELECT c.id AS id,
               count(t.position) AS cleaned_count,
               coalesce(sum(t.tokens), 0) AS total_tokens_cleared,
               strftime('%Y-%m-%dT%H:%M:%fZ', coalesce(c.recorded_at, c.began_at) / 1e6,
                        'unixepoch') AS execution_time,
               json_group_array(json_object('user', t.user, 'thread', t.thread,
                                            'tokens', t.tokens, 'position', t.position))
                   FILTER (WHERE t.position IS NOT NULL) AS details
          FROM cleanups c LEFT JOIN cleaned_threads t ON t.cleanup = c.id
         GROUP BY c.id
         ORDER BY coalesce(c.recorded_at, c.began_at) DESC, c.id
        """
    )


class CleanupLog(ReadModel):
    """Who was cleaned up when, by which run."""

    name = "cleanup_log"
    version = 1
    tables = ("cleanups", "cleaned_threads", "ThreadCleanupLog")
    migrations = _migrations
    events: ClassVar = (ThreadReset, CleanupRecorded)

    def session(self, db: sqlite3.Connection) -> Session:
        """Take part in the transaction that is open on `db`."""
        return _CleanupSession(db)


class _CleanupSession(Session):
    """Writes at once: clean-ups are rare."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def apply(self, batch: Sequence[Seen]) -> None:
        for position, stream, at, _, event in batch:
            if isinstance(event, ThreadReset):
                if event.reason == "cleanup":
                    self._left(position, stream, at, event)
            elif isinstance(event, CleanupRecorded):
                self._db.execute(_RECORD, (event.cleanup, at, at, event.limit, event.by))

    def _left(self, position: int, stream: str, at: int, event: ThreadReset) -> None:
        cleanup = event.cor or f"position-{position}"
        self._db.execute(
            "INSERT INTO cleanups (id, began_at) VALUES (?, ?) ON CONFLICT (id) DO NOTHING",
            (cleanup, at),
        )
        self._db.execute(
            'INSERT INTO cleaned_threads (position, cleanup, "user", thread, tokens, at)'
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                position,
                cleanup,
                stream.removeprefix(PREFIX),
                event.thread,
                event.left_behind,
                at,
            ),
        )

    def flush(self) -> None:
        pass


CLEANUP_LOG = CleanupLog()
