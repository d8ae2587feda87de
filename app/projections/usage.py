"""Usage: the tokens that OpenAI reported, per hour and model. Each bot has its own.

Costs are not stored: they are asked for (`analytics.usage`) with prices that are data, so that a
corrected price corrects the past at once. What cannot be priced is kept apart and counted: runs
that nobody could be asked about, and tokens that were not told apart into input and output.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from app.aggregates.events import TokensIncremented, UsageUnknown
from app.projections.model import Seen
from app.projections.tally import HOUR, Tally, TallyModel

_migrations = Migrations("usage")


class Usage(TallyModel):
    """What was used of which model."""

    name = "usage"
    version = 1
    table = "usage_hours"
    tables = ("usage_hours",)
    migrations = _migrations
    names = ("model",)
    sums = (
        *("runs", "total", "input", "output", "cached", "reasoning"),
        *("undivided_runs", "undivided_tokens", "unknown_runs"),
    )
    events: ClassVar = (TokensIncremented, UsageUnknown)
    unread: ClassVar = frozenset((UsageUnknown,))

    def fold(self, tally: Tally, batch: Iterable[Seen]) -> None:
        """Add the events to the rows. A count of 0 or less is skipped, as in the token totals."""
        for _, _, at, _, event in batch:
            if not isinstance(event, TokensIncremented):
                tally[at // HOUR, ""][8] += 1
            elif event.total > 0:
                row = tally[at // HOUR, event.model]
                total, sent, answered = event.total, event.input, event.output
                row[0] += 1
                row[1] += total
                row[5] += event.reasoning
                if sent + answered == total and event.cached <= sent:
                    row[2] += sent
                    row[3] += answered
                    row[4] += event.cached
                else:
                    row[6] += 1
                    row[7] += total


@_migrations()
def table(db: Database) -> None:
    """Make the table."""
    Usage.make_table(db)


USAGE = Usage()
