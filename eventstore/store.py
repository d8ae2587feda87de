"""The port of a log: what a writer, a reader and a subscriber ask of a store.

`eventstore.sqlite` and `eventstore.postgres` implement it; one conformance suite holds both to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from eventstore.errors import EventStoreError
from eventstore.types import (
    Append,
    Appended,
    Cursor,
    Head,
    IdempotencyKey,
    Micros,
    Position,
    Recorded,
    Snapshot,
    StreamName,
    Version,
)


class Beat(msgspec.Struct, frozen=True):
    """A node's heartbeat. `incarnation` changes at every start; `beat_at` is the store's time."""

    node: str
    incarnation: str
    release: str
    started_at: Micros
    beat_at: Micros = Micros(0)
    status: bytes = b""
    """What the node says of itself; the store keeps it as it came."""


class StreamInfo(msgspec.Struct, frozen=True):
    """A stream and where it ends."""

    name: StreamName
    version: Version


class Watch(Protocol):
    """Waits for news of one log. One thread waits; any thread may wake it.

    It tells when to look, not what there is: it may be woken for nothing, but a commit, whoever
    made it, ends the wait (in another process after a second at the latest).
    """

    def wait(self, timeout: float) -> bool:
        """Return True when there may be news since the last time, False after `timeout` seconds.

        The first wait ends at once. Raises `LogUnavailable` if the log cannot be asked.
        """

    def wake(self) -> None:
        """End the wait, or the next one."""


class LogReader(Protocol):
    """Everything that can be asked of a log. Safe to call from any thread."""

    def head(self) -> Head:
        """Return where the log ends now."""

    def now(self) -> Micros:
        """Return the store's time, as far as this node can tell. Never waits."""

    def skew(self) -> Micros:
        """Return by how much this node's clock is ahead of the store's, in µs."""

    def stream_version(self, stream: StreamName) -> Version:
        """Return the stream's version; 0 if there is no such stream."""

    def read_stream(
        self,
        stream: StreamName,
        *,
        after: Version = ...,
        up_to: Version | None = None,
        limit: int | None = None,
    ) -> list[Recorded]:
        """Return events of one stream with `after < version <= up_to`, oldest first."""

    def read(
        self,
        *,
        after: Position = ...,
        up_to: Position | None = None,
        limit: int = 1000,
        types: Sequence[str] | None = None,
    ) -> list[Recorded]:
        """Return events with `after < position <= up_to`, oldest first.

        About `limit` events: a page never splits an append, so it may be a little longer.
        """

    def read_holding(
        self, part: bytes, *, after: Position, up_to: Position, limit: int
    ) -> list[Recorded]:
        """Return, as `read` does, the events whose state holds these bytes anywhere.

        Every event in between is looked at: it is `up_to` that bounds the time.
        """

    def scan(
        self, *, after: Position, up_to: Position, types: Sequence[str] | None = None
    ) -> list[tuple[int, int, str, int, bytes]]:
        """Return events, of some types, with `after < position <= up_to`, oldest first, for bulk.

        As (position, number of the stream, type, recorded_at, state): no more than a read model
        looks at. `stream_names` tells what the numbers stand for.
        """

    def stream_names(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return the names of streams by their numbers; both are for ever."""

    def event_at(self, position: Position) -> Recorded | None:
        """Return the event at a position, if the log reaches that far."""

    def event_by_key(self, key: IdempotencyKey) -> Recorded | None:
        """Return the event that holds an idempotency key."""

    def position_at(self, instant: Micros) -> Position:
        """Return the last position recorded at or before the instant; 0 if none."""

    def streams(self, prefix: str = "") -> Iterator[StreamInfo]:
        """Yield the streams whose names start with `prefix`, oldest first."""

    def count_by_type(self) -> dict[str, int]:
        """Return how many events of each stored type there are."""

    def cursor_at(self, position: Position) -> Cursor:
        """Return a cursor at a position, with its leaf hash."""

    def verify_cursor(self, cursor: Cursor) -> None:
        """Raise `CursorMismatch` unless the log still holds what the cursor was taken from."""

    def snapshot(self, stream: StreamName) -> Snapshot | None:
        """Return the stream's snapshot, if one fits this epoch and is not above the head."""

    def nodes(self) -> list[Beat]:
        """Return every node that ever beat."""

    def size(self) -> int:
        """Return the bytes of the log's tables, indexes included."""

    def connections(self) -> int:
        """Return a number that grows whenever the log is reached over a new connection.

        It may lead to another copy of the log (a failover): whoever goes on from a cursor compares
        it again. Always 0 where that cannot happen.
        """

    def watch(self) -> Watch:
        """Return what waits for news of the log. Raises `LogUnavailable` if the log is closed."""


class LogStore(LogReader, Protocol):
    """A log that can also be written, by one thread of this process at a time."""

    def append_batch(
        self,
        appends: Sequence[Append],
        snapshots: Sequence[Snapshot] = (),
        beats: Sequence[Beat] = (),
    ) -> list[Appended | EventStoreError]:
        """Commit the appends in one transaction and return one answer for each, in order.

        An append that cannot be made (`Conflict`, `DuplicateKey`, `EpochMismatch`,
        `AppendRejected`) fails alone. `LogUnavailable` for all: nothing was appended.
        Answers are given only when the transaction is durable, failures included: a
        `DuplicateKey` of a message in the same batch is durable, too.
        """

    def forget_nodes(self, before: Micros) -> int:
        """Delete the rows of nodes that last beat before an instant; return how many there were.

        Safe from any thread. Raises `LogUnavailable`.
        """

    def forget_node(self, node: str, incarnation: str) -> bool:
        """Delete the row of a node that ends; return whether that incarnation had one.

        Safe from any thread. Raises `LogUnavailable`.
        """

    def close(self) -> None:
        """Close every connection."""
