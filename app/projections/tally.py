"""Read models that count per hour: a batch is added up in memory, then onto the table's rows.

A row is a key (the hour and a few names), sums, and maxima. Both come out the same however the
log is cut into batches, so nothing has to be loaded. The fold is pure, as `people`'s is.
"""

from __future__ import annotations

import sqlite3
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import ClassVar, Final

from sqlite_utils import Database

from app.projections.model import ReadModel, Seen, Session
from app.projections.writing import insert_rows

HOUR: Final = 3_600_000_000
"""µs."""

_MAX_ROWS: Final = 200_000

TallyKey = tuple[int | str, ...]
"""Hours since the epoch, then names."""


class Tally(dict[TallyKey, list[int]]):
    """Numbers by key. A key that is asked for and not there begins at 0."""

    def __init__(self, width: int) -> None:
        """Start empty, with so many numbers a row."""
        super().__init__()
        self._width = width

    def __missing__(self, key: TallyKey) -> list[int]:
        row = self[key] = [0] * self._width
        return row


class TallyModel(ReadModel):
    """A read model of one table: `hour` (ISO 8601, UTC), names, sums, maxima."""

    table: ClassVar[str]
    names: ClassVar[tuple[str, ...]] = ()
    sums: ClassVar[tuple[str, ...]]
    maxima: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def fold(self, tally: Tally, batch: Iterable[Seen]) -> None:
        """Add the events to the rows. Touches nothing else."""

    def new_tally(self) -> Tally:
        """Return rows for `fold`: sums first, then maxima."""
        return Tally(len(self.sums) + len(self.maxima))

    def session(self, db: sqlite3.Connection) -> Session:
        """Take part in the transaction that is open on `db`."""
        return _TallySession(self, db)

    @classmethod
    def make_table(cls, db: Database) -> None:
        """Make the table: what the first migration does."""
        numbers = (*cls.sums, *cls.maxima)
        columns: dict[str, type] = {"hour": str}
        columns |= dict.fromkeys(cls.names, str) | dict.fromkeys(numbers, int)
        db.table(cls.table).create(
            columns, pk=("hour", *cls.names), not_null=set(columns), strict=True
        )

    def add(self, db: sqlite3.Connection, tally: Tally) -> None:
        """Add the rows onto those of the table."""
        keys, numbers = ("hour", *self.names), (*self.sums, *self.maxima)
        changes = [f"{name} = {name} + excluded.{name}" for name in self.sums]
        changes += [f"{name} = max({name}, excluded.{name})" for name in self.maxima]
        insert_rows(
            db,
            f"INSERT INTO {self.table} ({', '.join(keys + numbers)})",
            [(hour_text(key[0]), *key[1:], *row) for key, row in sorted(tally.items())],
            f"ON CONFLICT DO UPDATE SET {', '.join(changes)}",
        )


class _TallySession(Session):
    def __init__(self, model: TallyModel, db: sqlite3.Connection) -> None:
        self._model = model
        self._db = db
        self._tally = model.new_tally()

    def apply(self, batch: Sequence[Seen]) -> None:
        if len(self._tally) > _MAX_ROWS:
            self.flush()
        self._model.fold(self._tally, batch)

    def flush(self) -> None:
        self._model.add(self._db, self._tally)
        self._tally.clear()


@lru_cache(maxsize=10_000)
def hour_text(hour: int | str) -> str:
    """Return an hour since the epoch as `2026-11-21T14:00Z`; its first ten letters are the day."""
    return datetime.fromtimestamp(int(hour) * 3600, UTC).strftime("%Y-%m-%dT%H:%MZ")
