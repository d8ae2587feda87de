"""One log, seen twice: through a network that fails when told to, and directly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import msgspec
import psycopg

from eventstore.postgres import PostgresLog, PostgresSettings
from tests.postgres import PostgresServer
from tests.postgres_home import PATIENCE
from tests.tcp_proxy import TcpProxy

SCHEMA = "bot"
HASTY = PostgresSettings(
    connect_timeout=2, lock_timeout=0.5, statement_timeout=1.0, read_timeout=1.0, settle_seconds=10
)
"""Settings under which nothing waits for long, but a COMMIT in doubt is asked about for long."""
HASTIEST = msgspec.structs.replace(HASTY, settle_seconds=0.5)
"""The same for a log that stays away."""


class Stage:
    """A fresh database with one log. A context manager."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.url = server.database()
        self.proxy = TcpProxy(server.port)
        self.truth = PostgresLog(self.url, schema=SCHEMA)
        """The log without the network between."""
        self._opened: list[PostgresLog] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.proxy.resume()
        self.proxy.accept()
        for log in self._opened:
            log.close()
        self.truth.close()
        self.proxy.close()
        if self.server.running:
            self.server.drop(self.url)

    def open(self, settings: PostgresSettings = HASTY) -> PostgresLog:
        """Open the log once more, through the network."""
        log = PostgresLog(self.proxy.url(self.url), schema=SCHEMA, settings=settings)
        self._opened.append(log)
        return log

    @contextmanager
    def head_locked(self) -> Iterator[None]:
        """Hold the lock that every append needs."""
        with psycopg.connect(self.url) as other:
            other.execute(f"SELECT * FROM {SCHEMA}.head FOR UPDATE")
            yield

    def wait_for_waiters(self, count: int = 1) -> None:
        """Return when so many sessions wait for a lock."""
        query = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        with psycopg.connect(self.url, autocommit=True) as other:
            until(lambda: other.execute(query).fetchall() == [(count,)])

    def sessions(self) -> list[tuple[Any, ...]]:
        """The sessions in this database, besides the asking one."""
        query = (
            "SELECT pid, state, query FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        with psycopg.connect(self.url, autocommit=True) as other:
            return other.execute(query).fetchall()


def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; it asks somebody else, which takes time enough."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
