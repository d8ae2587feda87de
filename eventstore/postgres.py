"""The log on PostgreSQL: one schema a log, one writer in each process, any number of processes.

The database itself refuses UPDATE, DELETE, TRUNCATE and a gap (`sql/postgres/0001_log.sql`).
Connections are `postgres_connections`' affair, appending `postgres_appends`'; reading is here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import psycopg

from eventstore.errors import LogUnavailable
from eventstore.postgres_appends import PostgresAppends
from eventstore.postgres_arrays import bigints, texts
from eventstore.postgres_connections import SQL, PostgresSettings, Server, is_lost
from eventstore.postgres_notices import Listener, NoticeWatch
from eventstore.postgres_pool import Pool
from eventstore.postgres_schema import check_name, open_schema, prepare
from eventstore.queries import LogQueries, Values
from eventstore.types import (
    AppendId,
    Clock,
    Micros,
    Position,
)

_DEFAULTS: Final = PostgresSettings()
_WIDE: Final = 1000
"""Positions from which on a scan is planned anew: knowing the types the server hashes them, where a
plan that is kept compares each row with one after the other (docs/performance.md)."""


class PostgresLog(PostgresAppends, LogQueries):
    """A `LogStore` in one schema of a PostgreSQL database.

    `append_batch` belongs to one thread at a time; everything else is safe from any thread.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str,
        settings: PostgresSettings = _DEFAULTS,
        clock: Clock | None = None,
        server: bool = False,
    ) -> None:
        """Open the log; create or upgrade its schema if this role may.

        `clock` is for tests; None is the server's. Raises `LogUnavailable` if the server cannot be
        reached, or the schema is missing, too old, or made for a later release; `ValueError` for a
        name that no schema should have.
        """
        del server  # the database looks after its own files
        self.schema = check_name(schema)
        where = Server(url, schema, settings)
        super().__init__(where, clock)
        self._pool = Pool(where, self._lineage)
        self._listener = Listener(where)
        try:
            with where.connect() as connection:
                open_schema(connection, schema)
            self._connected()
        except psycopg.Error as error:
            self.close()
            msg = f"cannot open the log: {where.why(error)}"
            raise LogUnavailable(msg) from error
        except LogUnavailable:
            self.close()
            raise

    def _ask(self, query: str, values: Values = (), *, prepare: bool | None = None) -> list[Any]:
        """Return the rows of one query, asked again if the connection turns out to be dead.

        `prepare` is psycopg's: None keeps a plan for what is asked again and again, False makes one
        for these very values.
        """
        try:
            try:
                return self._fetch(query, values, prepare=prepare)
            except psycopg.Error as error:
                if not is_lost(error):
                    raise
                self._pool.drop_idle()
                return self._fetch(query, values, prepare=prepare)
        except psycopg.Error as error:
            msg = f"the log cannot be read: {self._server.why(error)}"
            raise LogUnavailable(msg) from error

    def _fetch(self, query: str, values: Values, *, prepare: bool | None) -> list[Any]:
        with self._pool.connection() as connection:
            cursor = connection.execute(SQL[query], values, prepare=prepare, binary=True)
            return cursor.fetchall()

    def now(self) -> Micros:
        """Return the store's time, as far as this node can tell. Never waits."""
        return self._clock.now()

    def _ask_for_types(
        self, query: str, after: int, up_to: int, types: Sequence[str], *more: object
    ) -> list[Any]:
        prepare = None if more or up_to - after < _WIDE else False
        return self._ask(query, (after, up_to, texts(types), *more), prepare=prepare)

    def _saw(self, position: Position, append_id: AppendId) -> None:
        self._lineage.saw(position, append_id)

    def stream_names(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return the names of streams by their numbers; both are for ever."""
        return dict(self._ask("select_stream_names", (bigints(list(numbers)),)))

    def position_at(self, instant: Micros) -> Position:
        """Return the last position recorded at or before the instant; 0 if none."""
        return Position(self._ask("position_at", (instant,))[0][0])

    def size(self) -> int:
        """Return the bytes of the log's tables, indexes included."""
        return int(self._ask("size", (self.schema,))[0][0])

    def watch(self) -> NoticeWatch:
        """Return what waits for news of the log, by notices and a look now and then."""
        return self._listener.watch()

    def connections(self) -> int:
        """Return a number that grows whenever the log is reached over a new connection."""
        return self._lineage.connections

    def skew(self) -> Micros:
        """Return by how much this node's clock is ahead of the server's."""
        if self._held is not None:
            return Micros(0)
        return Micros(time.time_ns() // 1000 - self._estimate())

    def close(self) -> None:
        """Close every connection. Idempotent."""
        with self._write_lock:
            self._closed = True
            self._disconnect()
        self._notifier.close()
        self._listener.close()
        self._pool.close()


__all__ = ["PostgresLog", "PostgresSettings", "prepare"]
