"""Thread changes: conversations begun and left per hour and reason, and tokens left behind (A8).

What was imported counts in the hour in which it happened.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from app.aggregates.events import ThreadReset, ThreadStarted
from app.projections.model import Seen
from app.projections.tally import HOUR, Tally, TallyModel

_migrations = Migrations("thread_changes")


class ThreadChanges(TallyModel):
    """How often conversations change, and why."""

    name = "thread_changes"
    version = 2
    table = "thread_changes"
    tables = ("thread_changes",)
    migrations = _migrations
    names = ("reason",)
    sums = ("started", "resets", "left_behind")
    maxima = ("most_left_behind",)
    events: ClassVar = (ThreadStarted, ThreadReset)

    def fold(self, tally: Tally, batch: Iterable[Seen]) -> None:
        """Add the events to the rows."""
        for _, _, at, _, event in batch:
            if isinstance(event, ThreadStarted):
                tally[(event.at or at) // HOUR, event.reason][0] += 1
            elif isinstance(event, ThreadReset):
                row = tally[(event.at or at) // HOUR, event.reason]
                row[1] += 1
                row[2] += event.left_behind
                row[3] = max(row[3], event.left_behind)


@_migrations()
def table(db: Database) -> None:
    """Make the table."""
    ThreadChanges.make_table(db)


THREAD_CHANGES = ThreadChanges()
