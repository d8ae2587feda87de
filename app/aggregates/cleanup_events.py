"""Every event of the stream `cleanups`: one record for each run of the thread clean-up.

What was cleaned is in the users' own streams (`ThreadReset`, reason `cleanup`, whose correlation
is the run's id); this says that the run ended, under which limit, and who asked for it. Wire names
as in `app.aggregates.events`.
"""

from __future__ import annotations

from typing import Final

from msgspec import field

from eventstore.codec import Event
from eventstore.types import StreamName

CLEANUP_STREAM: Final = StreamName("cleanups")


class CleanupRecorded(Event, frozen=True):
    """A run of the clean-up has ended: every thread at or over `limit` was looked at."""

    cleanup: str = field(name="u")
    """Id of the run."""
    limit: int = field(name="l")
    """Tokens."""
    cleaned: int = field(name="n")
    """Threads that this run left."""
    tokens: int = field(name="t")
    """Tokens that were counted on them."""
    by: str = field(name="b", default="")
    """Who asked for it; empty: the schedule."""


CLEANUP_EVENTS: tuple[type[Event], ...] = (CleanupRecorded,)
"""Every class of the clean-up's stream."""
