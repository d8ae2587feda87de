"""What every query shares: one moment of the views, its position, and a span of hours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import msgspec

from app.projections.errors import NotBuilt, OtherVersion
from app.projections.registry import MODELS
from app.projections.tally import HOUR, hour_text
from app.projections.views import Views, standings
from eventstore.types import Position

Per = Literal["hour", "day", "month", "all"]
"""What figures are added up over."""

_LETTERS = {"hour": 17, "day": 10, "month": 7, "all": 0}


class Span(msgspec.Struct, frozen=True):
    """Whole hours: the one that holds `since` (µs) and those after it, before `until` (µs)."""

    since: int | None = None
    until: int | None = None
    per: Per = "day"

    @property
    def period(self) -> str:
        """SQL: the period that a row's `hour` belongs to; empty for `all`."""
        return f"substr(hour, 1, {_LETTERS[self.per]})"

    @property
    def where(self) -> str:
        """SQL: whether a row's `hour` is in the span; takes `bounds`."""
        return "hour >= :since AND hour < :until"

    @property
    def bounds(self) -> dict[str, str]:
        """The values of `where`."""
        return {
            "since": "" if self.since is None else hour_text(self.since // HOUR),
            "until": "~" if self.until is None else hour_text(-(-self.until // HOUR)),
        }


@contextmanager
def asking(views: Views, *names: str) -> Iterator[tuple[sqlite3.Connection, Position]]:
    """Give one moment of the views, and the position that all the models named have reached.

    Raises `NotBuilt`, or `OtherVersion` if the rows that are there were built by a release whose
    tables had other columns.
    """
    with views.read() as db:
        found = standings(db)
        for name in names:
            if name not in found:
                raise NotBuilt(name)
        try:
            yield db, min(found[name].cursor.position for name in names)
        except sqlite3.OperationalError as error:
            known = {model.name: model.version for model in MODELS}
            other = next((n for n in names if found[n].version != known.get(n)), None)
            if other is None:
                raise
            raise OtherVersion(other, found[other].version) from error
