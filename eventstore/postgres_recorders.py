"""The `eventsourcing` library's PostgreSQL recorders over the log's own tables.

`PERSISTENCE_MODULE=eventstore.postgres_recorders` runs any application of the library on a Hilo log
in the schema `POSTGRES_SCHEMA`, as `eventstore.recorders` does on SQLite. Its other settings mean
what they mean to the library, but `POSTGRES_ENABLE_DB_FUNCTIONS` is refused: with it the library
hands out notification ids without a lock, and who follows the log can pass over an event.

The library's `@retry` is not inherited on writes: an append whose COMMIT was lost is looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, cast
from uuid import UUID

# The library takes the one factory class that it finds in this module's namespace: its own must not
# be in it by name.
from eventsourcing import postgres as library
from eventsourcing.persistence import (
    InterfaceError,
    Notification,
    OperationalError,
    ProgrammingError,
    StoredEvent,
)
from eventsourcing.postgres import PostgresAggregateRecorder, PostgresApplicationRecorder
from eventsourcing.utils import Environment, EnvType, retry
from psycopg import Connection, Cursor
from psycopg.rows import DictRow, dict_row, tuple_row
from psycopg.sql import SQL, Identifier, Literal

from eventstore import sql
from eventstore.postgres_schema import open_schema
from eventstore.recorder_subscription import (
    FollowedRecorder,
    notification,
    position_before,
    stored_event,
    stream_name,
)
from eventstore.types import AppendId, new_append_id

__all__ = ["Factory", "LogAggregateRecorder", "LogApplicationRecorder", "LogDatastore"]

_SQL: Final = sql.load("postgres_recorders.sql")
_END: Final = 2**63 - 1
_again = retry((InterfaceError, OperationalError), max_attempts=10, wait=0.2)


class LogDatastore(library.PostgresDatastore):
    """The library's pool, whose sessions are in the log's schema and keep its rules."""

    def after_connect_func(self) -> Callable[[Connection[Any]], None]:
        """Return what prepares a new session; it holds no reference to this object."""
        theirs = super().after_connect_func()
        settings = SQL("SET search_path TO {}; SET lock_timeout TO {}").format(
            Identifier(self.schema), Literal(f"{self.lock_timeout}s")
        )

        def after_connect(connection: Connection[Any]) -> None:
            theirs(connection)
            connection.execute(settings)
            connection.execute(  # remote_apply is more than on
                "SELECT set_config('synchronous_commit', 'on', false) "
                "WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')"
            )

        return after_connect

    def create_log(self) -> None:
        """Create the log's tables, functions and triggers, if they are not there yet.

        Raises `LogUnavailable` if this role may not, or the schema is a later release's.
        """
        with self.get_connection() as connection:
            connection.row_factory = cast("Any", tuple_row)
            try:
                open_schema(connection, self.schema)
            finally:
                connection.row_factory = dict_row


class LogAggregateRecorder(PostgresAggregateRecorder):
    """The library's aggregate recorder (its snapshots) in the log's schema."""

    def create_table(self) -> None:
        """Create its table in the log's schema."""
        cast("LogDatastore", self.datastore).create_log()
        super().create_table()

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> None:  # noqa: ANN401
        """Insert once: after a lost connection the caller decides."""
        if stored_events:
            with self.datastore.transaction(commit=True) as cursor:
                self._insert_stored_events(cursor, stored_events, **kwargs)


class LogApplicationRecorder(FollowedRecorder, PostgresApplicationRecorder):
    """The library's application recorder, reading and appending the log's events."""

    def create_table(self) -> None:
        """Create the log's tables, functions and triggers, if they are not there yet."""
        cast("LogDatastore", self.datastore).create_log()

    def insert_events(
        self,
        stored_events: Sequence[StoredEvent],
        **_: Any,  # noqa: ANN401 - the library's signature
    ) -> Sequence[int]:
        """Append the events as one append; return their positions.

        Raises `IntegrityError` if a version is taken, and `OperationalError` or `InterfaceError`
        if the connection was lost; then, unless the log cannot be asked, nothing was appended.
        """
        if not stored_events:
            return []
        append_id = new_append_id()
        positions: list[int] = []
        try:
            with self.datastore.transaction(commit=True) as cursor:
                positions = _append(cursor, stored_events, append_id)
        except (OperationalError, InterfaceError):
            # Before all was inserted there was nothing to commit.
            if not positions or not self._is_committed(positions[-1], append_id):
                raise
        return positions

    @_again  # the pool may hold more connections that were lost with this one
    def _is_committed(self, position: int, append_id: AppendId) -> bool:
        """Settle a COMMIT of unknown outcome.

        The transaction in doubt held the head's lock: whoever gets it knows that it has ended.
        """
        with self.datastore.transaction(commit=True) as cursor:
            cursor.execute(_SQL["wait_for_head"])
            row = cursor.execute(_SQL["found"], (position, append_id)).fetchone()
        return bool(row and row["found"])

    @_again
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
        query = _SQL["select_events"].replace("/*order*/", "DESC" if desc else "ASC")
        low = -1 if gt is None else gt
        high = _END if lte is None else lte
        with self.datastore.get_connection() as connection:
            rows = connection.execute(
                query.encode(), (stream_name(originator_id), low, high, limit), prepare=True
            ).fetchall()
        return [stored_event(originator_id, row) for row in rows]

    @_again
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
        values = {
            "after": position_before(start, inclusive_of_start=inclusive_of_start),
            "stop": _END if stop is None else stop,
            "topics": list(topics) or None,
            "limit": limit,
        }
        with self.datastore.get_connection() as connection:
            rows = connection.execute(
                _SQL["select_notifications"].encode(), values, prepare=True
            ).fetchall()
        return [notification(self._originator_id(row["name"]), row) for row in rows]

    def _originator_id(self, name: str) -> UUID | str:
        return UUID(name) if self.datastore.originator_id_type == "uuid" else name

    @_again
    def max_notification_id(self) -> int | None:
        """Return the last position; None while the log is empty, by the library's test cases."""
        with self.datastore.get_connection() as connection:
            row = connection.execute(_SQL["select_last"]).fetchone()
        return (row["position"] if row else 0) or None


class Factory(library.PostgresFactory):
    """Builds the recorders from the library's `POSTGRES_…` settings."""

    aggregate_recorder_class = LogAggregateRecorder
    application_recorder_class = LogApplicationRecorder

    def __init__(self, env: Environment | EnvType | None) -> None:
        """Take the library's environment. Raises `OSError` for settings that cannot be used."""
        super().__init__(env)
        theirs = self.datastore
        theirs.close()
        if theirs.enable_db_functions:
            msg = (
                f"{self.POSTGRES_ENABLE_DB_FUNCTIONS} makes the library hand out positions without "
                "a lock, and readers skip events: leave it off"
            )
            raise OSError(msg)
        pool = theirs.pool
        connect = cast("dict[str, Any]", pool.kwargs)
        self.datastore = LogDatastore(
            **{name: connect[name] for name in ("dbname", "host", "port", "user", "password")},
            get_password_func=pool.get_password_func,
            connect_timeout=pool.timeout,
            pool_size=pool.min_size,
            max_overflow=pool.max_size - pool.min_size,
            max_waiting=pool.max_waiting,
            conn_max_age=pool.max_lifetime,
            pre_ping=theirs.pre_ping,
            schema=theirs.schema,
            lock_timeout=theirs.lock_timeout,
            idle_in_transaction_session_timeout=theirs.idle_in_transaction_session_timeout,
            single_row_tracking=theirs.single_row_tracking,
            originator_id_type=cast("Any", theirs.originator_id_type),
        )


def _append(
    cursor: Cursor[DictRow], events: Sequence[StoredEvent], append_id: AppendId
) -> list[int]:
    """Insert the events behind the head, whose lock is held from the first statement on."""
    names = [stream_name(event.originator_id) for event in events]
    head = cursor.execute(_SQL["advance"], (len(events),)).fetchone()
    if head is None:
        msg = "the log has lost its head: restore it"
        raise ProgrammingError(msg)
    before = head["position"] - len(events)
    cursor.execute(_SQL["add_streams"], (list(dict.fromkeys(names)),))
    cursor.execute(
        _SQL["add_events"],
        (
            before,
            head["recorded_at"],
            append_id,
            names,
            [event.originator_version for event in events],
            [event.topic for event in events],
            [event.state for event in events],
        ),
    )
    return list(range(before + 1, head["position"] + 1))
