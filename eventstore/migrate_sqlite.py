"""A log in an SQLite file, to be copied from or to.

A copy grows in `log.db.copying`, whose name says what it is, and gets its own name when it is
complete. Until then the directory holds no `log.db`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from eventstore import sql
from eventstore.durable import sync_directory
from eventstore.errors import CopyFailed, LogUnavailable
from eventstore.migrate import Asked, Reached, Row, Say, StreamRow
from eventstore.types import Head

_SQL: Final = sql.load("migrate_sqlite.sql")
_CACHE_PAGES: Final = -200_000  # KiB: room for the upper pages of three indexes


def copying_path(path: Path) -> Path:
    """Return where a copy that will be `path` grows."""
    return path.with_name(f"{path.name}.copying")


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        msg = f"{path} cannot be used now: {error}"
        raise LogUnavailable(msg) from error


class SqliteSource(Asked):
    """A log in a file, which is not changed."""

    def __init__(self, path: Path) -> None:
        """Open it to be read. Raises `LogUnavailable`."""
        self._path = path
        with _usable(path):
            uri = f"file:{quote(str(path.resolve()))}?mode=ro"
            self._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
            self._connection.execute("PRAGMA mmap_size=1073741824")

    def _ask(self, name: str, values: Sequence[object] = ()) -> list[Any]:
        with _usable(self._path):
            return self._connection.execute(_SQL[name], values).fetchall()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class SqliteTarget(SqliteSource):
    """A log that becomes a file."""

    def __init__(self, path: Path) -> None:
        """Open or create the file in which the copy grows, unless there is a log already.

        Raises `LogUnavailable`, `CopyFailed` if something else is in the way.
        """
        self._final = path
        self._path = copying_path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._exists = path.exists() and not _is_empty(path)
        if self._exists:
            super().__init__(path)
            return
        with _usable(self._path):
            self._connection = sqlite3.connect(self._path, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")  # whole pages, in order
            self._connection.execute(f"PRAGMA cache_size={_CACHE_PAGES}")

    def begin(self, head: Head) -> Reached:
        """Make the tables and the mark, or find them."""
        if self._exists:
            if self.head() != head:
                msg = f"{self._final} holds another log already: name an empty directory"
                raise CopyFailed(msg)
            return self._reached(complete=True)
        with _usable(self._path):
            if not self._ask("select_is_marked")[0][0]:
                if self._holds("head"):  # complete, but for its name
                    return self._check(self.head(), head)
                with self._transaction():
                    for statement in _schema("CREATE TABLE"):
                        self._connection.execute(statement)
                    self._connection.execute(_SQL["mark"])
                    self._ask("insert_mark", (head.epoch, head.position, head.recorded_at))
                sync_directory(self._path.parent)
        return self._check(Head(*self._ask("select_mark")[0]), head)

    def _check(self, marked: Head, head: Head) -> Reached:
        if marked != head:
            msg = f"{self._path} is a copy of another log, or of an older one: delete it first"
            raise CopyFailed(msg)
        return self._reached(complete=False)

    def _reached(self, *, complete: bool) -> Reached:
        stream, position = self._ask("select_reached")[0]
        return Reached(stream, position, complete)

    def _holds(self, table: str) -> bool:
        query = "SELECT count(*) FROM sqlite_master WHERE name = ?"
        return bool(self._connection.execute(query, (table,)).fetchone()[0])

    def add_streams(self, rows: list[StreamRow]) -> None:
        """Add streams in one transaction."""
        self._add("insert_stream", rows)

    def add_events(self, rows: list[Row]) -> None:
        """Add events in one transaction."""
        self._add("insert_event", rows)

    def _add(self, name: str, rows: Sequence[tuple[object, ...]]) -> None:
        with _usable(self._path), self._transaction():
            self._connection.executemany(_SQL[name], rows)

    def index(self, say: Say) -> None:
        """Build the indexes that are not there yet."""
        statements = [*_schema("CREATE INDEX"), *_schema("CREATE UNIQUE INDEX")]
        for done, statement in enumerate(statements, start=1):
            with _usable(self._path):
                self._connection.execute(statement)
            say("indexing", done, len(statements))

    def complete(self, head: Head) -> None:
        """Put up triggers and head, and give the file its name."""
        with _usable(self._path):
            if self._ask("select_is_marked")[0][0]:
                with self._transaction():
                    self._ask("insert_head", (head.epoch, head.position, head.recorded_at))
                    for statement in _schema("CREATE"):
                        self._connection.execute(statement)
                    self._connection.execute(_SQL["unmark"])
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()
        for suffix in ("", "-wal", "-shm"):  # of an empty log: never beside another file
            self._final.with_name(self._final.name + suffix).unlink(missing_ok=True)
        self._path.rename(self._final)
        sync_directory(self._final.parent)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def _is_empty(path: Path) -> bool:
    """Tell whether a file is a log without any event or stream, as a server makes it."""
    with _usable(path):
        connection = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)
        try:
            found = connection.execute(
                "SELECT count(*) FROM sqlite_master WHERE name = 'head'"
            ).fetchone()[0]
            if not found:
                return False
            query = "SELECT (SELECT position FROM head) + (SELECT count(*) FROM streams)"
            return bool(connection.execute(query).fetchone()[0] == 0)
        finally:
            connection.close()


def _schema(kind: str) -> list[str]:
    """Return the statements of a log's schema that begin so."""
    statements: list[str] = []
    statement = ""
    for line in sql.load("sqlite.sql")["schema"].splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            statements.append(statement.strip())
            statement = ""
    return [each for each in statements if each.startswith(kind)]
