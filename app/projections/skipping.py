"""Skipping: an operator tells a read model to pass over one event that it cannot take.

Who skipped what, and why, is recorded in a ledger that outlives the read models: `views.db` only
holds a copy of it, and learns it again after it was deleted. An event is meant by its position and
its leaf hash: after a restore another event may stand at that position, and that one is not meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from eventstore.integrity import leaf_hash
from eventstore.store import LogReader
from eventstore.types import Micros, Position


class Skip(msgspec.Struct, frozen=True):
    """One event that one model is not shown."""

    model: str
    position: Position
    leaf: bytes
    """Leaf hash of the event."""
    by: str
    """Who decided it."""
    why: str
    at: Micros


class SkipLedger(Protocol):
    """Where skips are recorded for good."""

    def record(self, skip: Skip) -> None:
        """Record a skip; return when it is durable. `by` and `at` may be noted more exactly."""

    def recorded(self) -> Sequence[Skip]:
        """Return every skip, oldest first."""


def still_there(skip: Skip, log: LogReader) -> bool:
    """Tell whether the log still holds the event that was meant."""
    event = log.event_at(skip.position)
    return event is not None and leaf_hash(event) == skip.leaf
