"""The two stores of a keyring, opened as the program does, and looked at from beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import psycopg

from eventstore.keystore import KeyStore, SqliteKeyStore
from eventstore.postgres_keystore import PostgresKeyStore
from eventstore.postgres_link import Waits

OPEN = """
from pathlib import Path
from eventstore.keystore import SqliteKeyStore
from eventstore.postgres_keystore import PostgresKeyStore

def open_store(place):
    if place.startswith("postgresql:"):
        return PostgresKeyStore(place, "bot-1")
    return SqliteKeyStore(Path(place))
"""
"""What a child process needs to open a store at its `place`."""


class Place(Protocol):
    """Where a keyring is kept."""

    place: str
    """As `OPEN` takes it: a path or a URL."""

    def open(self, *, patient: bool = True) -> KeyStore:
        """Open it as another process does; an impatient one does not wait for a writer."""

    def execute(self, statement: str, *values: object) -> list[Any]:
        """Run a statement past the program. `?` stands for a value."""

    def raw(self) -> bytes:
        """Return every byte of the tables, the deleted ones too."""

    def writing(self) -> AbstractContextManager[None]:
        """Hold the lock of a writer."""

    def reading(self) -> AbstractContextManager[None]:
        """Keep a transaction open that has read all keys."""


class SqlitePlace:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = str(path)

    def open(self, *, patient: bool = True) -> SqliteKeyStore:
        store = SqliteKeyStore(self.path)
        if not patient:
            store._connection.execute("PRAGMA busy_timeout = 0")
        return store

    def execute(self, statement: str, *values: object) -> list[Any]:
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            return connection.execute(statement, values).fetchall()
        finally:
            connection.close()

    def raw(self) -> bytes:
        files = list(self.path.parent.glob(f"{self.path.name}*"))
        assert files
        return b"".join(file.read_bytes() for file in files)

    @contextmanager
    def writing(self) -> Iterator[None]:
        writer = sqlite3.connect(self.path, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        yield
        writer.close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        reader = sqlite3.connect(self.path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM keys").fetchall()
        yield
        reader.close()


class PostgresPlace:
    schema = "bot-1"

    def __init__(self, url: str) -> None:
        self.place = url

    def open(self, *, patient: bool = True) -> PostgresKeyStore:
        waits = Waits() if patient else Waits(lock=0.02)
        return PostgresKeyStore(self.place, self.schema, waits=waits)

    def execute(self, statement: str, *values: object) -> list[Any]:
        with self._connect() as connection:
            cursor = connection.execute(statement.replace("?", "%s"), values)
            return cursor.fetchall() if cursor.description else []

    def raw(self) -> bytes:
        read = (
            "SELECT pg_read_binary_file(pg_relation_filepath(oid::regclass)) FROM pg_class "
            "WHERE relnamespace = ?::regnamespace"
        )
        self.execute("CHECKPOINT")
        files = self.execute(read, f'"{self.schema}"')
        assert files
        return b"".join(file for (file,) in files)

    @contextmanager
    def writing(self) -> Iterator[None]:
        other = PostgresKeyStore(self.place, self.schema)
        with suppress(InterruptedError), other.transaction():
            yield
            raise InterruptedError  # nothing was to be written
        other.close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._connect() as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            connection.execute("SELECT * FROM secrets")
            yield

    @contextmanager
    def _connect(self) -> Iterator[psycopg.Connection[Any]]:
        options = f'-c search_path="{self.schema}"'
        with psycopg.connect(self.place, autocommit=True, options=options) as connection:
            yield connection
