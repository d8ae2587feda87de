"""Logs on PostgreSQL, for the suite: one schema each, in one database of the session's server."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import psycopg
from eventsourcing.persistence import AggregateRecorder, ApplicationRecorder
from psycopg.sql import SQL, Identifier

from eventstore.postgres import PostgresLog, PostgresSettings
from eventstore.postgres_recorders import Factory
from eventstore.store import LogStore
from eventstore.types import Clock
from tests.conformance.stores import Refused, StoreFactory
from tests.postgres import library_settings

SETTINGS = PostgresSettings(settle_seconds=0.2)
_TABLES = ("head", "streams", "events")
_INDEXES = (("events", "position"), ("events", "stream_id, version"), ("streams", "name"))
_FULL = """
CREATE FUNCTION {schema}.disk_is_full() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER disk_is_full BEFORE INSERT ON {schema}.events
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.disk_is_full()
"""


class PostgresFactory(StoreFactory):
    """Logs in one schema of a database."""

    name = "postgres"
    database: ClassVar[str] = ""
    """The URL of the session's database, for a superuser: the tests' own, not the program's."""

    def __init__(self, _: Path) -> None:
        super().__init__()
        self.url = self.database
        self.schema = f"log_{secrets.token_hex(6)}"
        self._factories: list[Factory] = []

    def _open(self, clock: Clock | None, *, server: bool) -> LogStore:
        return PostgresLog(
            self.url, schema=self.schema, settings=SETTINGS, clock=clock, server=server
        )

    def tamper(self, statement: str, values: Sequence[object] = ()) -> None:
        try:
            with self._bare() as bare:
                bare.execute(statement.encode(), values)
        except psycopg.Error as error:
            raise Refused(str(error)) from error

    def everything(self) -> list[tuple[object, ...]]:
        with self._bare() as bare:
            return [
                (table, *row)
                for table in _TABLES
                for row in bare.execute(
                    SQL("SELECT * FROM {} ORDER BY 1").format(Identifier(table))
                )
            ]

    def damage(self) -> list[str]:
        # amcheck is not in every installation: each index must lead to what the table holds.
        found = []
        with self._bare() as bare:
            for table, order in _INDEXES:
                rows = SQL("SELECT * FROM {} ORDER BY {}").format(Identifier(table), SQL(order))
                answers = []
                for way in ("seqscan", "indexscan"):
                    with bare.transaction():
                        bare.execute(SQL("SET LOCAL {} = off").format(Identifier(f"enable_{way}")))
                        answers.append(bare.execute(rows).fetchall())
                if answers[0] != answers[1]:
                    found.append(f"{table} by {order}")
        return found

    def copy(self, name: str) -> None:
        with self._bare() as bare:
            kept = Identifier(f"{self.schema}_{name}")
            bare.execute(SQL("CREATE SCHEMA {}").format(kept))
            for table in _TABLES:
                of = Identifier(table)
                bare.execute(SQL("CREATE TABLE {}.{} AS TABLE {}").format(kept, of, of))

    def put_back(self, name: str) -> None:
        kept = Identifier(f"{self.schema}_{name}")
        with self._bare() as bare, bare.transaction():
            bare.execute("SET LOCAL session_replication_role = replica")
            bare.execute("TRUNCATE head, streams, events")
            for table in _TABLES:
                of = Identifier(table)
                bare.execute(SQL("INSERT INTO {} SELECT * FROM {}.{}").format(of, kept, of))

    def commits(self, store: LogStore) -> list[str]:
        log: Any = _postgres(store)
        transact, seen = log._transact, list[str]()

        def counting(*args: object) -> object:
            answer = transact(*args)
            seen.append("COMMIT")
            return answer

        log._transact = counting
        return seen

    def break_commit(
        self, store: LogStore, how: Literal["before", "after", "for good"], error: BaseException
    ) -> None:
        log: Any = _postgres(store)
        transact = log._transact

        def down(**_: object) -> None:
            raise error

        def breaking(*args: object) -> None:
            log._transact = transact
            if how != "before":
                transact(*args)
            if how == "for good":
                log._server.connect = down
            raise error

        log._transact = breaking

    def fill_disk(self, store: LogStore) -> None:
        with self._bare() as bare:
            bare.execute(SQL(_FULL).format(schema=Identifier(self.schema)))

    def make_room(self, store: LogStore) -> None:
        with self._bare() as bare:
            bare.execute("DROP TRIGGER disk_is_full ON events; DROP FUNCTION disk_is_full()")

    def commit_error(self) -> Exception:
        return psycopg.OperationalError("server closed the connection unexpectedly")

    def library_environment(self) -> dict[str, str]:
        settings = library_settings(self.url) | {"POSTGRES_SCHEMA": self.schema}
        return settings | {"PERSISTENCE_MODULE": "eventstore.postgres_recorders"}

    def aggregate_recorder(self) -> AggregateRecorder:
        return self._library().aggregate_recorder()

    def application_recorder(self) -> ApplicationRecorder:
        return self._library().application_recorder()

    def close(self) -> None:
        super().close()
        for factory in self._factories:
            factory.close()
        self._factories.clear()

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_factories": []}

    def _library(self) -> Factory:
        factory = Factory(self.library_environment())
        self._factories.append(factory)
        return factory

    def _bare(self) -> psycopg.Connection[Any]:
        """Connect as any client could, with no setting of ours."""
        options = f"-c search_path={self.schema} -c client_min_messages=warning"
        return psycopg.connect(self.url, autocommit=True, options=options)


def _postgres(store: LogStore) -> PostgresLog:
    assert isinstance(store, PostgresLog)
    return store
