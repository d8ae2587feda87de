"""Token totals: what each user's conversation has cost so far, and what was left behind (A8).

Tokens belong to the conversation, not to the user. An increment counts in `tokens` only if its
conversation is still the user's current one; it counts in `total` always. A count of 0 or less
is skipped. A new conversation starts at 0; what was counted on the one before is in
`left_behind`: as the reset says, or, where nobody recorded one, as it was counted here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final, Literal

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from app.aggregates.events import ThreadReset, ThreadStarted, TokensIncremented, UsageUnknown
from app.projections.model import Seen
from app.projections.people import PersonModel, PersonRow, Rows

Band = Literal["normal", "caution", "warning", "critical"]
BANDS: Final[tuple[tuple[Band, int], ...]] = (
    ("critical", 100),
    ("warning", 80),
    ("caution", 50),
    ("normal", 0),
)
"""Each band and the percentage of the limit from which on it holds (B1)."""

DEFAULT_LIMIT: Final = 1_000_000

_migrations = Migrations("token_totals")


@_migrations()
def table(db: Database) -> None:
    """Make the table."""
    db.table("token_totals").create(
        {
            "user": str,
            "thread": str,
            "tokens": int,
            "total": int,
            "left_behind": int,
            "unknown_runs": int,
        },
        pk="user",
        not_null={"user", "tokens", "total", "left_behind", "unknown_runs"},
        strict=True,
    )


def band(tokens: int, limit: int = DEFAULT_LIMIT) -> Band:
    """Return the band of a count: exact, in integers, at every boundary."""
    return next(name for name, percent in BANDS if tokens * 100 >= limit * percent or not percent)


class TokenRow(PersonRow, gc=False):
    """One user's tokens."""

    thread: str | None = None
    tokens: int = 0
    """On the current conversation."""
    total: int = 0
    """Ever, whatever became of the conversation."""
    left_behind: int = 0
    unknown_runs: int = 0
    """Runs that may have been billed and whose usage nobody could say."""


class TokenTotals(PersonModel[TokenRow]):
    """What each conversation has cost."""

    name = "token_totals"
    version = 1
    table = "token_totals"
    tables = ("token_totals",)
    migrations = _migrations
    row = TokenRow
    events: ClassVar = (TokensIncremented, ThreadStarted, ThreadReset, UsageUnknown)
    unread: ClassVar = frozenset((UsageUnknown,))

    def fold(self, rows: Rows[TokenRow], batch: Iterable[Seen]) -> None:
        """Change the rows by the events, oldest first."""
        for _, stream, _, kind, event in batch:
            row = rows[stream]
            if isinstance(event, TokensIncremented):
                total = event.total
                if total > 0:
                    row.total += total
                    if event.thread == row.thread:
                        row.tokens += total
            elif isinstance(event, ThreadStarted):
                row.left_behind += row.tokens
                row.thread = event.thread
                row.tokens = 0
            elif isinstance(event, ThreadReset):
                _reset(row, event)
            elif kind is UsageUnknown:
                row.unknown_runs += 1


def _reset(row: TokenRow, event: ThreadReset) -> None:
    row.left_behind += event.left_behind
    if row.thread == event.thread:
        row.tokens = 0
        if event.reason != "empty":  # an emptied conversation stays linked
            row.thread = None


TOKEN_TOTALS = TokenTotals()
