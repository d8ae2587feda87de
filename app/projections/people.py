"""Read models with one row a user: load the rows of a batch, fold the events in, store them.

The fold is pure, so that it also answers "as of" from a dict, without a database.
"""

from __future__ import annotations

import json
import sqlite3
from abc import abstractmethod
from collections.abc import Collection, Iterable, Sequence
from operator import attrgetter
from typing import ClassVar, Final, Generic, TypeVar

import msgspec
from msgspec.structs import astuple

from app.projections.model import ReadModel, Seen, Session
from app.projections.writing import insert_rows

PREFIX: Final = "user/"
_MAX_ROWS: Final = 200_000
KEPT_ROWS: Final = 10_000
"""Rows that a session remembers from one transaction to the next."""


class PersonRow(msgspec.Struct, gc=False):
    """A row, mutable while a batch is folded. Its fields are the table's columns, in order."""

    user: str
    """The pseudonym."""


R = TypeVar("R", bound=PersonRow)


class Rows(dict[str, R], Generic[R]):
    """Rows by stream. A user who is asked for and not there begins with a blank row."""

    def __init__(self, row: type[R]) -> None:
        """Start empty."""
        super().__init__()
        self._row = row

    def __missing__(self, stream: str) -> R:
        row = self[stream] = self._row(stream.removeprefix(PREFIX))
        return row


class PersonModel(ReadModel, Generic[R]):
    """A read model of one table, keyed by `user`."""

    row: type[R]
    table: ClassVar[str]

    @abstractmethod
    def fold(self, rows: Rows[R], batch: Iterable[Seen]) -> None:
        """Change the rows by the events, oldest first. Touches nothing else."""

    def session(self, db: sqlite3.Connection) -> Session:
        """Take part in the transaction that is open on `db`."""
        return _PersonSession(self, db)

    def load(self, db: sqlite3.Connection, streams: Collection[str]) -> Rows[R]:
        """Return the rows that the users of these streams have."""
        rows = Rows(self.row)
        if not streams:
            return rows
        users = json.dumps([stream.removeprefix(PREFIX) for stream in streams])
        query = (
            f"SELECT {', '.join(self._columns())} FROM {self.table}"  # noqa: S608 - our own names
            " WHERE user IN (SELECT value FROM json_each(?))"
        )
        for values in db.execute(query, (users,)):
            rows[PREFIX + values[0]] = self.row(*values)
        return rows

    def is_blank(self, db: sqlite3.Connection) -> bool:
        """Tell whether the table has no rows."""
        query = f"SELECT 1 FROM {self.table} LIMIT 1"  # noqa: S608 - our own name
        return db.execute(query).fetchone() is None

    def store(self, db: sqlite3.Connection, rows: Iterable[R]) -> None:
        """Write the rows. In the order of the key: neighbours share their pages."""
        columns = self._columns()
        changes = ", ".join(f"{name} = excluded.{name}" for name in columns[1:])
        insert_rows(
            db,
            f"INSERT INTO {self.table} ({', '.join(columns)})",
            [astuple(row) for row in sorted(rows, key=attrgetter("user"))],
            f"ON CONFLICT (user) DO UPDATE SET {changes}",
        )

    def _columns(self) -> tuple[str, ...]:
        return self.row.__struct_fields__


class _PersonSession(Session, Generic[R]):
    """Keeps the rows of the transaction's users, so that each is read and written once."""

    def __init__(self, model: PersonModel[R], db: sqlite3.Connection) -> None:
        self._model = model
        self._db = db
        self._rows = Rows(model.row)
        self._changed: set[str] = set()
        """Streams whose rows are to be written, unless all are."""
        self._blank = model.is_blank(db)  # at the start of a rebuild: nothing to load

    def apply(self, batch: Sequence[Seen]) -> None:
        if len(self._rows) > _MAX_ROWS:
            self.flush()
        if not self._blank:
            streams = {seen[1] for seen in batch}
            strangers = streams.difference(self._rows)
            self._rows.update(self._model.load(self._db, strangers))
            self._changed |= streams
        self._model.fold(self._rows, batch)

    def flush(self) -> None:
        rows = self._rows
        changed = rows.values() if self._blank else [rows[stream] for stream in self._changed]
        self._model.store(self._db, changed)
        self._changed.clear()
        self._blank = False
        if len(rows) > KEPT_ROWS:
            rows.clear()
