"""What can be asked of the clean-up log (B3): each run, the newest first, with what it cleaned."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from app.projections.asking import asking
from app.projections.views import Views
from eventstore.types import Position

_RUNS: Final = """
SELECT id, coalesce(recorded_at, began_at), recorded_at IS NOT NULL, token_limit, "by"
  FROM cleanups ORDER BY 2 DESC, id LIMIT ? OFFSET ?
"""
_THREADS: Final = """
SELECT position, "user", thread, tokens, at FROM cleaned_threads WHERE cleanup = ? ORDER BY position
"""


class CleanedThread(msgspec.Struct, frozen=True):
    """One conversation that was left. The event at `position` did it: before it all was there."""

    position: Position
    user: str
    thread: str | None
    tokens: Annotated[int, Meta(description="tokens that were left with it")]
    at: int


class Cleanup(msgspec.Struct, frozen=True):
    """One run of the clean-up."""

    id: str
    cleaned_count: int
    total_tokens_cleared: Annotated[int, Meta(description="tokens, of all of them together")]
    execution_time: int
    """µs: when it ended; when it began, if it did not end."""
    details: list[CleanedThread]
    complete: bool
    """False if it did not say that it ended: it still runs, or was killed."""
    limit: Annotated[int | None, Meta(description="tokens from which on it left a conversation")]
    by: str | None


class Cleanups(msgspec.Struct, frozen=True):
    """Some runs, as of a position of the log."""

    position: Position
    cleanups: list[Cleanup]


def cleanups(views: Views, *, limit: int = 10, offset: int = 0) -> Cleanups:
    """Return the newest runs first."""
    with asking(views, "cleanup_log") as (db, position):
        found = []
        for id_, at, complete, token_limit, by in db.execute(_RUNS, (limit, offset)).fetchall():
            threads = [CleanedThread(*row) for row in db.execute(_THREADS, (id_,))]
            cleared = sum(thread.tokens for thread in threads)
            found.append(
                Cleanup(id_, len(threads), cleared, at, threads, bool(complete), token_limit, by)
            )
    return Cleanups(position, found)
