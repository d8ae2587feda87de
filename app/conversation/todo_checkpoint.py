"""The to-do list's place on disk: one cursor, and the streams that had open work there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path

import msgspec
import sqlite_utils
import structlog

from app.conversation.agenda import Open
from app.derived import (
    Contents,
    file_id,
    is_damaged,
    opened,
    put_aside,
    remove_leftovers,
    wal_of,
)
from eventstore.types import Cursor, Epoch, Position, StreamName

_log = structlog.get_logger(__name__)

_TABLES = ("todo", "todo_records")
"""Streams with open work, and those where only a record is to come."""
_KINDS: tuple[Open, ...] = ("work", "record")
"""What is open of the streams in each."""


class Listed(msgspec.Struct, frozen=True):
    """What a checkpoint holds."""

    cursor: Cursor | None
    work: list[StreamName]
    records: list[StreamName]


class TodoCheckpoint:
    """The list's place on disk: one cursor and the streams that had open work there.

    Whoever saves owns the file: one that was deleted, replaced or written over meanwhile, or is
    damaged, is opened anew and gets all that is open.
    """

    def __init__(self, path: Path) -> None:
        """Open or create `todo.db`. Raises `sqlite3.DatabaseError` if it is damaged."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._opened(_connect(path))

    @classmethod
    def owned(cls, path: Path) -> TodoCheckpoint:
        """Open or create `todo.db` for its owner: a damaged one is put aside for a new one."""
        return opened(path, cls._readable)

    @classmethod
    def _readable(cls, path: Path) -> TodoCheckpoint:
        checkpoint = cls(path)
        try:
            checkpoint.load()
        except BaseException:
            checkpoint.close()
            raise
        return checkpoint

    @property
    def is_in_place(self) -> bool:
        """Whether the open file is still the one of that name."""
        same = self._file is not None and self._file == file_id(self._path)
        return same and not self._is_harmed

    @property
    def _is_harmed(self) -> bool:
        """Whether the open file, whatever its name is by now, may hold what was not saved."""
        return self._contents.are_foreign() or self._wal != wal_of(self._path)

    def load(self) -> Listed:
        """Return the cursor, if there is one, and the open streams at it."""
        row = self._connection.execute("SELECT epoch, position, leaf FROM todo_cursor").fetchone()
        if row is None:
            return Listed(None, [], [])
        work, records = (self._read(table) for table in _TABLES)
        return Listed(Cursor(Epoch(row[0]), Position(row[1]), row[2]), work, records)

    def _read(self, table: str) -> list[StreamName]:
        rows = self._connection.execute(f"SELECT stream FROM {table}")  # noqa: S608 - ours
        return [StreamName(row[0]) for row in rows]

    def save(
        self,
        cursor: Cursor,
        work: AbstractSet[StreamName],
        records: AbstractSet[StreamName] = frozenset(),
    ) -> None:
        """Replace cursor and streams in one transaction; only what changed is written."""
        if not self.is_in_place:
            self._replace("it was written over, or its -wal was taken away")
        try:
            self._save(cursor, work, records)
        except sqlite3.DatabaseError as error:
            if not is_damaged(error):
                raise
            self._replace(error)
            self._save(cursor, work, records)

    def _replace(self, why: sqlite3.DatabaseError | str) -> None:
        """Open what is there instead of the file, or a new one instead of one that is harmed."""
        self._connection.close()  # first: two files of one name must not be open at once
        if self._file is not None and self._file == file_id(self._path):
            put_aside(self._path, why)
        else:
            remove_leftovers(self._path, self._wal)
            _log.warning("DERIVED_FILE_REPLACED", file=self._path.name)
        self._opened(opened(self._path, _connect))

    def _opened(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._file, self._wal = file_id(self._path), wal_of(self._path)
        self._contents = Contents(self._path)

    def _save(self, cursor: Cursor, *lists: AbstractSet[StreamName]) -> None:
        with self._moving_to(cursor):
            for table, streams in zip(_TABLES, lists, strict=True):
                before = set(self._read(table))
                self._remove(table, before - streams)
                self._insert(table, streams - before)

    def update(self, cursor: Cursor, moved: Mapping[StreamName, Open]) -> bool:
        """Move the cursor, and the streams that are open otherwise than at the last save.

        Return False, with nothing written, if the file is not the one that was saved to, or is
        damaged: everything is to be saved then.
        """
        if not self.is_in_place:
            return False
        try:
            with self._moving_to(cursor):
                for table, kind in zip(_TABLES, _KINDS, strict=True):
                    self._remove(table, moved)
                    self._insert(table, [stream for stream, what in moved.items() if what == kind])
        except sqlite3.DatabaseError as error:
            if not is_damaged(error):
                raise
            return False
        return True

    @contextmanager
    def _moving_to(self, cursor: Cursor) -> Iterator[None]:
        execute = self._connection.execute
        self._contents.compare()
        execute("BEGIN IMMEDIATE")
        try:
            yield
            execute(
                "INSERT OR REPLACE INTO todo_cursor VALUES (1, ?, ?, ?)",
                (cursor.epoch, cursor.position, cursor.leaf),
            )
            execute("COMMIT")
            self._contents.note()
        except BaseException:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise

    def _remove(self, table: str, streams: Iterable[StreamName]) -> None:
        query = f"DELETE FROM {table} WHERE stream IN (SELECT value FROM json_each(?))"  # noqa: S608
        self._connection.execute(query, (_as_json(streams),))

    def _insert(self, table: str, streams: Iterable[StreamName]) -> None:
        query = f"INSERT INTO {table} SELECT value FROM json_each(?)"  # noqa: S608
        self._connection.execute(query, (_as_json(streams),))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _as_json(streams: Iterable[StreamName]) -> str:
    return msgspec.json.encode(list(streams)).decode()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA busy_timeout=10000")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        database = sqlite_utils.Database(connection)
        is_older = database["todo"].exists() and not database["todo_records"].exists()
        for table in _TABLES:
            database.table(table).create({"stream": str}, pk="stream", if_not_exists=True)
        database.table("todo_cursor").create(
            {"id": int, "epoch": int, "position": int, "leaf": bytes}, pk="id", if_not_exists=True
        )
        if is_older:  # of a release that listed no records: every user is looked at once
            connection.execute("DELETE FROM todo_cursor")
    except BaseException:
        connection.close()
        raise
    return connection
