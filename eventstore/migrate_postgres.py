"""A log in a PostgreSQL schema, to be copied from or to.

A source's head is locked for as long as it is open, so that nobody appends, and nodes that beat
are refused. A target has neither head nor indexes nor triggers until it is complete, and a table
`copying`, which every node that opens the log looks for (`postgres_schema`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from struct import Struct
from typing import Any, Final

import psycopg

from eventstore import sql
from eventstore.errors import CopyFailed, HalfCopied, LogUnavailable, StoreLocked
from eventstore.migrate import Asked, Reached, Row, Say, StreamRow
from eventstore.postgres_connections import PostgresSettings, Server
from eventstore.postgres_patience import PatientConnection
from eventstore.postgres_schema import check_name, migrate
from eventstore.types import Head

_SQL: Final = sql.load("migrate_postgres.sql")
_PATIENCE_SECONDS: Final = 3600.0
_SESSION: Final = (
    "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = '1h'; "
    "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; "
    "SET maintenance_work_mem = '256MB'; SET client_min_messages = warning"
)
"""A machine that dies in the middle of a copy keeps the source's head locked for half a minute."""
_MICROS: Final = 1_000_000

# The binary format of COPY: a signature, flags and an extension of length 0; then tuples, each its
# number of fields and each field after its length; then -1.
_COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER: Final = b"\xff\xff"
_EVENT: Final = Struct(">hiqiqiqiq")
_STREAM: Final = Struct(">hiqi")
_LENGTH: Final = Struct(">i")
_VERSION: Final = Struct(">iq")
_NULL: Final = b"\xff\xff\xff\xff"


class PostgresSource(Asked):
    """A log in a schema, which is not changed; nobody appends to it while this is open."""

    def __init__(self, url: str, schema: str, *, dead_seconds: float) -> None:
        """Lock the log's head. A node counts as stopped `dead_seconds` after its last beat.

        Raises `StoreLocked` if a node serves the log, `HalfCopied`, `LogUnavailable`.
        """
        self._schema = schema
        self.place = f"schema {schema}"
        self._connection = _connect(url, schema)
        try:
            with _usable(self.place):
                self._stop_appends(dead_seconds)
        except BaseException:
            self._connection.close()
            raise

    def _stop_appends(self, dead_seconds: float) -> None:
        if self._one("select_is_marked"):
            raise HalfCopied(self.place)
        if not self._one("select_is_log"):
            msg = f"there is no log in {self.place}"
            raise LogUnavailable(msg)
        self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        self._ask("stop_appends")
        _refuse_nodes(self._connection, self.place, dead_seconds)

    def _ask(self, name: str, values: Sequence[object] = ()) -> list[Any]:
        with _usable(self.place):
            return self._connection.execute(_SQL[name], values or None, binary=True).fetchall()

    def _one(self, name: str) -> Any:  # noqa: ANN401 - whatever the statement selects
        return self._ask(name)[0][0]

    def close(self) -> None:
        """Let go of the log; the lock goes with the session."""
        self._connection.close()


class PostgresTarget(PostgresSource):
    """A log that becomes a schema's. The role owns the schema, or may make it."""

    def _stop_appends(self, dead_seconds: float) -> None:
        if not self._ask("lock_copy", (self._schema,))[0][0]:
            msg = f"another copy into {self.place} is under way"
            raise StoreLocked(msg)
        if not self._one("select_is_marked"):
            migrate(self._connection, self._schema)
        _refuse_nodes(self._connection, self.place, dead_seconds)

    def begin(self, head: Head) -> Reached:
        """Take down what slows the copy, and leave the mark; or find it."""
        if self._one("select_is_marked"):
            epoch, position, recorded_at, stream, reached = self._ask("select_mark")[0]
            if Head(epoch, position, recorded_at) != head:
                msg = f"{self.place} is a copy of another log, or of an older one: drop it first"
                raise CopyFailed(msg)
            return Reached(stream, reached)
        if not self._one("select_is_empty"):
            if self.head() != head:
                msg = f"{self.place} holds another log already: name a database without one"
                raise CopyFailed(msg)
            last, position = self._ask("select_ends")[0]
            return Reached(last, position, complete=True)
        with self._transaction() as run:
            run(_SQL["mark"])
            run(_SQL["insert_mark"], (head.epoch, head.position, head.recorded_at))
        return Reached(0, 0)

    def add_streams(self, rows: list[StreamRow]) -> None:
        """Add streams in one transaction."""
        self._copy("copy_streams", _streams(rows), "note_stream", rows[-1][0])

    def add_events(self, rows: list[Row]) -> None:
        """Add events in one transaction."""
        self._copy("copy_events", _events(rows), "note_position", rows[-1][0])

    def _copy(self, copy: str, rows: bytes, note: str, reached: int) -> None:
        with self._transaction() as run, self._connection.cursor() as cursor:
            run("SET LOCAL synchronous_commit = off")  # `complete` waits for all of them
            with cursor.copy(_SQL[copy]) as into:
                into.write(rows)
            run(_SQL[note], (reached,))

    def index(self, say: Say) -> None:
        """Build the indexes that are not there yet, each in a transaction."""
        if not self._one("select_is_marked"):
            return
        statements = self._one("select_rebuild")
        for done, statement in enumerate(statements, start=1):
            with self._transaction() as run:
                run(statement)
                run(_SQL["note_built"])
            say("indexing", done, len(statements))
        with _usable(self.place):
            self._connection.execute("ANALYZE streams, events")

    def complete(self, head: Head) -> None:
        """Put up triggers and head, and take the mark away."""
        with self._transaction() as run:
            run("SET LOCAL synchronous_commit = on")
            run(_SQL["insert_head"], (head.epoch, head.position, head.recorded_at))
            run(_SQL["unmark"])

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        with _usable(self.place), self._connection.transaction():

            def run(statement: str, values: Sequence[object] = ()) -> None:
                self._connection.execute(statement, values or None)

            yield run


def _connect(url: str, schema: str) -> PatientConnection:
    server = Server(url, check_name(schema), PostgresSettings())
    try:
        connection = server.connect(patience=_PATIENCE_SECONDS)
        connection.execute(_SESSION)
    except psycopg.Error as error:
        msg = server.why(error)
        raise LogUnavailable(msg) from error
    return connection


def _refuse_nodes(connection: PatientConnection, place: str, dead_seconds: float) -> None:
    """Raise `StoreLocked` if a node has said lately that it serves this log."""
    beating = connection.execute(
        _SQL["select_beating"], (round(dead_seconds * _MICROS),)
    ).fetchall()
    if beating:
        names = ", ".join(name for (name,) in beating)
        msg = (
            f"{place} is served by {names}: stop every node first (one counts as stopped "
            f"{dead_seconds:g} s after its last heartbeat)"
        )
        raise StoreLocked(msg)


@contextmanager
def _usable(place: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        msg = f"PostgreSQL, {place}: {' '.join(str(error).split())}"
        raise LogUnavailable(msg) from error


def _streams(rows: list[StreamRow]) -> bytes:
    parts = [_COPY_HEADER]
    for number, name, version in rows:
        encoded = name.encode()
        parts += (
            _STREAM.pack(3, 8, number, len(encoded)),
            encoded,
            _VERSION.pack(8, version),
        )
    return b"".join((*parts, _COPY_TRAILER))


def _events(rows: list[Row]) -> bytes:
    event, length = _EVENT.pack, _LENGTH.pack
    kinds: dict[str, bytes] = {}
    parts = [_COPY_HEADER]
    for position, stream, version, kind, recorded_at, key, append_id, state in rows:
        named = kinds.get(kind)
        if named is None:
            encoded = kind.encode()
            named = kinds[kind] = length(len(encoded)) + encoded
        parts += (
            event(8, 8, position, 8, stream, 8, version, 8, recorded_at),
            named,
            _NULL if key is None else length(len(key)) + key,
            length(len(append_id)),
            append_id,
            length(len(state)),
            state,
        )
    return b"".join((*parts, _COPY_TRAILER))
