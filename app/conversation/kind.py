"""What a repository has to know of one kind of aggregates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from eventstore.codec import Codec, Event
from eventstore.types import IdempotencyKey, Micros, StreamName, Version

A = TypeVar("A")
S = TypeVar("S")

Triggered = tuple[Event, IdempotencyKey | None]
"""An event that a decision has triggered, and its idempotency key."""


class Kind(Protocol[A, S]):
    """One kind of aggregate: how its states begin, evolve, are kept and decided upon."""

    codec: Codec
    shape: bytes

    def blank(self, stream: StreamName) -> S:
        """Return the state before the first event."""

    def evolve(self, state: S, event: Event, version: Version, recorded_at: Micros) -> S:
        """Return the state after an event. Pure."""

    def revive(self, stream: StreamName, state: S, version: Version, *, read_only: bool) -> A:
        """Return the aggregate that decides upon a state."""

    def collect(self, aggregate: A) -> Sequence[Triggered]:
        """Return and forget the events that the aggregate's decisions triggered."""

    def state_of(self, aggregate: A) -> S:
        """Return the aggregate's state, its triggered events included."""

    def pack(self, state: S) -> bytes:
        """Encode a state for a snapshot."""

    def unpack(self, state: bytes) -> S:
        """Decode a snapshot's state."""
