"""What every aggregate of ours is: a stream, a version, a frozen state, events not yet collected.

`CollectEventsProtocol` and `MutableAggregateProtocol` of the `eventsourcing` library, without
its deep copies: a state is replaced whole, so a decision that fails leaves the cached one alone.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from app.aggregates.answers import Done
from eventstore.codec import Event
from eventstore.types import IdempotencyKey, Micros, StreamName, Version

S = TypeVar("S")

Triggered = tuple[Event, IdempotencyKey | None]
"""An event that is not in the log yet, and its idempotency key."""


class ReadOnlyUser(Exception):
    """The stream holds events of a newer release: record facts, decide nothing."""

    def __init__(self, stream: StreamName) -> None:
        self.stream = stream
        super().__init__(
            f"{stream} holds events of a newer release: this node records what happens to it "
            "and decides nothing; upgrade this node"
        )


class Aggregate(Generic[S]):
    """Decides upon a state. Cheap to make: one for each decision."""

    __slots__ = ("_triggered", "read_only", "state", "stream", "version")

    def __init__(
        self,
        stream: StreamName,
        state: S,
        version: Version = Version(0),  # noqa: B008 - an int
        *,
        read_only: bool = False,
    ) -> None:
        self.stream = stream
        self.state = state
        self.version = version
        self.read_only = read_only
        self._triggered: list[Triggered] = []

    @property
    def id(self) -> StreamName:
        """The stream's name, as the library calls it."""
        return self.stream

    def collect_events(self) -> list[Triggered]:
        """Return and forget the events triggered since the last call, in order.

        They belong into one append that expects `version` minus their number. Their effect on
        the state has the decision's time: apply them again with the append's `recorded_at`.
        """
        triggered, self._triggered = self._triggered, []
        return triggered

    def follow(self, event: Event, version: Version, recorded_at: Micros) -> None:
        """Apply the event that the log holds at a version of the stream."""
        self.state = self._evolve(event, version, recorded_at)
        self.version = version

    def _evolve(self, event: Event, version: Version, now: Micros) -> S:
        raise NotImplementedError

    def _trigger(self, event: Event, now: Micros, key: IdempotencyKey | None = None) -> None:
        """Apply the event to the state, and keep it for the next `collect_events`."""
        self.follow(event, Version(self.version + 1), now)
        self._triggered.append((event, key))

    def _record(self, event: Event, now: Micros, key: IdempotencyKey | None = None) -> Done:
        """Trigger the event and answer with its version."""
        self._trigger(event, now, key)
        return Done(self.version)

    def _decide(self) -> None:
        """Raise `ReadOnlyUser` unless this release knows every event of the stream."""
        if self.read_only:
            raise ReadOnlyUser(self.stream)
