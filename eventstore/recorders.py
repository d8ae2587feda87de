"""The `eventsourcing` library's recorders over the log's own tables.

`PERSISTENCE_MODULE=eventstore.recorders` runs any application of the library on a Hilo log:
its stored events are the log's events, its notification ids are positions. Rules about
versions and epochs live in `eventstore.writer`, because the library's contract lets an
aggregate start at any version; the database's own rules (append-only, no gap) hold here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

# The library takes the one factory class that it finds in this module's namespace: its own must not
# be in it by name.
from eventsourcing import sqlite as library
from eventsourcing.persistence import (
    Notification,
    StoredEvent,
)
from eventsourcing.sqlite import (
    SQLiteAggregateRecorder,
    SQLiteApplicationRecorder,
    SQLiteCursor,
)
from eventsourcing.utils import Environment, EnvType

from eventstore.recorder_subscription import (
    FollowedRecorder,
    notification,
    position_before,
    stored_event,
    stream_name,
)
from eventstore.sqlite import SQL, LogDatastore, system_clock
from eventstore.types import new_append_id

__all__ = ["Factory", "LogAggregateRecorder", "LogApplicationRecorder"]


class LogAggregateRecorder(SQLiteAggregateRecorder):
    """The library's aggregate recorder (its snapshots) on the log's hardened connections."""


class LogApplicationRecorder(FollowedRecorder, SQLiteApplicationRecorder):
    """The library's application recorder, reading and appending the log's events."""

    datastore: LogDatastore

    def create_table(self) -> None:
        """Create the log's tables and triggers, if they are not there yet."""
        with self.datastore.get_connection(commit=True) as connection:
            cursor = connection.cursor().sqlite_cursor
            found = "SELECT count(*) FROM sqlite_master WHERE name = 'streams_no_rename'"
            if not cursor.execute(found).fetchone()[0]:
                cursor.executescript("BEGIN IMMEDIATE;" + SQL["schema"] + "COMMIT;")

    def _insert_events(
        self,
        c: SQLiteCursor,
        stored_events: Sequence[StoredEvent],
        **_: Any,  # noqa: ANN401 - the library's signature
    ) -> Sequence[int]:
        """Append the events as one append. Raises `IntegrityError` if a version is taken."""
        if not stored_events:
            return []
        cursor = c.sqlite_cursor
        # The first statement writes: the lock is held before anything is read.
        position, recorded_at = cursor.execute(
            "UPDATE head SET position = position + ?, recorded_at = max(?, recorded_at + 1) "
            "RETURNING position, recorded_at",
            (len(stored_events), system_clock()),
        ).fetchone()
        first = position - len(stored_events) + 1
        append_id = new_append_id()
        cursor.executemany(
            "INSERT INTO events VALUES (?,?,?,?,?,?,?,?)",
            [
                (
                    first + i,
                    self._stream_id(c, stream_name(event.originator_id)),
                    event.originator_version,
                    event.topic,
                    recorded_at,
                    None,
                    append_id,
                    event.state,
                )
                for i, event in enumerate(stored_events)
            ],
        )
        return list(range(first, position + 1))

    def _stream_id(self, c: SQLiteCursor, name: str) -> int:
        row = c.sqlite_cursor.execute(SQL["select_stream"], (name,)).fetchone()
        if row is not None:
            return int(row["id"])
        c.sqlite_cursor.execute(SQL["insert_stream"], (name,))
        return cast("int", c.lastrowid)

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Return the events of one originator, by the library's contract."""
        query = (
            "SELECT e.version, e.type, e.state "  # noqa: S608 - nothing of the caller's is in it
            "FROM events e JOIN streams s ON s.id = e.stream_id "
            "WHERE s.name = ? AND e.version > ? AND e.version <= ? ORDER BY e.version "
            f"{'DESC' if desc else 'ASC'} LIMIT ?"
        )
        low = -1 if gt is None else gt
        high = 2**62 if lte is None else lte
        values = (stream_name(originator_id), low, high, -1 if limit is None else limit)
        with self.datastore.transaction(commit=False) as c:
            rows = c.sqlite_cursor.execute(query, values).fetchall()
        return [stored_event(originator_id, row) for row in rows]

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Return notifications by position, by the library's contract."""
        after = position_before(start, inclusive_of_start=inclusive_of_start)
        query = SQL["read_all"]
        extra: tuple[str, ...] = ()
        if topics:
            query = SQL["read_types"].replace("/*types*/", ",".join("?" * len(topics)))
            extra = tuple(topics)
        values = (after, 2**62 if stop is None else stop, *extra, limit)
        with self.datastore.transaction(commit=False) as c:
            rows = c.sqlite_cursor.execute(query, values).fetchall()
        return [notification(self.convert_originator_id(row["name"]), row) for row in rows]

    def max_notification_id(self) -> int | None:  # type: ignore[override]
        """Return the last position; None while the log is empty, by the library's test cases."""
        with self.datastore.transaction(commit=False) as c:
            position = c.sqlite_cursor.execute(SQL["select_head"]).fetchone()["position"]
        return position or None


class Factory(library.SQLiteFactory):
    """Builds the recorders; `SQLITE_DBNAME` is the log's `file:` URI or path."""

    aggregate_recorder_class = LogAggregateRecorder
    application_recorder_class = LogApplicationRecorder

    def __init__(self, env: Environment | EnvType | None) -> None:
        """Take the library's environment; see `eventsourcing.sqlite.SQLiteFactory`."""
        super().__init__(env)
        theirs = self.datastore
        self.datastore = LogDatastore(
            theirs.pool.db_name,
            lock_timeout=theirs.pool.lock_timeout,
            single_row_tracking=theirs.single_row_tracking,
            originator_id_type=theirs.originator_id_type,
        )
        theirs.close()
