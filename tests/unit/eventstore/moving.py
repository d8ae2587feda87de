"""Logs of both stores, filled with whatever a log may hold, and the ends of a copy between them."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path
from typing import Any, Protocol

import psycopg

from eventstore.migrate import Moved, Source, Target, move
from eventstore.migrate_postgres import PostgresSource, PostgresTarget
from eventstore.migrate_sqlite import SqliteSource, SqliteTarget
from eventstore.postgres import PostgresLog
from eventstore.sqlite import SQLiteLog
from eventstore.store import LogStore
from eventstore.types import (
    Append,
    Epoch,
    Head,
    IdempotencyKey,
    NewEvent,
    Position,
    Recorded,
    StreamName,
    Version,
    new_append_id,
)
from tests.postgres_home import home

Contents = tuple[Head, list[Recorded], list[tuple[StreamName, Version]], dict[int, str]]
SCHEMA = "bot_a"
DEAD_SECONDS = 10.0


class End(Protocol):
    """A place for a log: where it is copied from or to."""

    def open(self) -> LogStore:
        """Open it as a server does."""

    def source(self) -> Source:
        """Open it to be copied from."""

    def target(self) -> Target:
        """Open it to be copied to."""

    def execute(self, statement: str) -> None:
        """Run SQL past the program."""

    def schema(self) -> str:
        """Return what the tables, indexes, triggers and rights are."""


class SqliteEnd:
    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> SQLiteLog:
        return SQLiteLog(self.path)

    def source(self) -> SqliteSource:
        return SqliteSource(self.path)

    def target(self) -> SqliteTarget:
        return SqliteTarget(self.path)

    def execute(self, statement: str) -> None:
        growing = self.path.with_name("log.db.copying")
        connection = sqlite3.connect(growing if growing.exists() else self.path)
        with connection:
            connection.execute(statement)
        connection.close()

    def schema(self) -> str:
        connection = sqlite3.connect(self.path)
        query = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type, name"
        rows = connection.execute(query).fetchall()
        connection.close()
        return "\n".join(sql for (sql,) in rows)

    def everything(self) -> list[str]:
        connection = sqlite3.connect(self.path)
        lines = sorted(connection.iterdump())
        connection.close()
        return lines


class PostgresEnd:
    def __init__(self, url: str) -> None:
        self.url = url

    def open(self) -> PostgresLog:
        return PostgresLog(self.url, schema=SCHEMA)

    def source(self) -> PostgresSource:
        return PostgresSource(self.url, SCHEMA, dead_seconds=DEAD_SECONDS)

    def target(self) -> PostgresTarget:
        return PostgresTarget(self.url, SCHEMA, dead_seconds=DEAD_SECONDS)

    def execute(self, statement: str) -> None:
        options = f"-c search_path={SCHEMA}"
        with psycopg.connect(self.url, autocommit=True, options=options) as connection:
            connection.execute(statement)

    def schema(self) -> str:
        dumped = subprocess.run(
            [home().program("pg_dump"), "--schema-only", "--schema", SCHEMA, self.url],
            check=True,
            capture_output=True,
            text=True,
        )
        lines = dumped.stdout.splitlines()
        return "\n".join(line for line in lines if not line.startswith(("\\", "--")))


def fill(log: LogStore, appends: int = 40) -> None:
    """Append events with and without keys, of several streams, at odd sizes, in a later epoch."""
    for n in range(appends):
        stream = StreamName(f"user/{n % 7}" if n % 5 else "jobs/Iñtërnâtiônàlizætiøn ✓")
        version = log.stream_version(stream)
        head = log.head()
        events = tuple(
            NewEvent(
                f"Kind{n % 3}",
                bytes([n]) * (n * k * 13),
                IdempotencyKey(f"key{head.position:>10}{k:>3}".encode()) if (n + k) % 2 else None,
            )
            for k in range(1 + n % 4)
        )
        (answer,) = log.append_batch([Append(stream, version, events, head.epoch, new_append_id())])
        assert not isinstance(answer, Exception), answer


def contents(log: LogStore) -> Contents:
    """All that a log says of itself."""
    events = log.read(limit=10_000_000)
    streams = [(info.name, info.version) for info in log.streams()]
    return log.head(), events, streams, log.stream_names(range(1, len(streams) + 1))


def quietly(_what: str, _done: int, _total: int) -> None:
    """Show no progress."""


def copy(source: End, target: End) -> Moved:
    held, wanted = source.source(), target.target()
    try:
        return move(held, wanted, quietly, before_use=lambda: None)
    finally:
        held.close()
        wanted.close()


def goes_on(log: LogStore) -> Position:
    """Append once more, and be refused a key that was taken before; return the position."""
    head = log.head()
    taken = next(event.key for event in log.read(limit=1000) if event.key is not None)
    stream = StreamName("user/1")
    version = log.stream_version(stream)

    def append(key: IdempotencyKey | None, epoch: Epoch, expected: Version) -> Any:  # noqa: ANN401
        events = (NewEvent("More", b"", key),)
        return log.append_batch([Append(stream, expected, events, epoch, new_append_id())])[0]

    assert type(append(taken, head.epoch, version)).__name__ == "DuplicateKey"
    assert type(append(None, Epoch(head.epoch - 1), version)).__name__ == "EpochMismatch"
    appended: Position = append(None, head.epoch, version).first_position
    return appended
