"""What both stores are asked alike: the same questions, under the same names in their SQL."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Final

from eventstore.errors import CursorMismatch
from eventstore.integrity import leaf_hash
from eventstore.store import Beat, StreamInfo
from eventstore.types import (
    Cursor,
    Head,
    IdempotencyKey,
    Position,
    Recorded,
    Snapshot,
    StreamName,
    Version,
)

START: Final = Position(0)
END: Final = Position(2**63 - 1)
NEW: Final = Version(0)

PlainRow = tuple[int, str, int, str, int, bytes | None, bytes, bytes]
"""An event as a plain tuple, in the order of `Recorded`'s fields."""

_PAGE: Final = 1000


class LogQueries(ABC):
    """The part of a `LogReader` that follows from asking a store by the names of its queries."""

    @abstractmethod
    def _ask(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """Return the rows of one query. Raises `LogUnavailable`."""

    @abstractmethod
    def read_rows(
        self,
        *,
        after: Position = START,
        up_to: Position | None = None,
        limit: int = 1000,
        types: Sequence[str] | None = None,
    ) -> list[PlainRow]:
        """Return what `read` returns as plain tuples in the order of `Recorded`'s fields."""

    @abstractmethod
    def _page(
        self,
        query: str,
        wanted: Sequence[object],
        after: Position,
        up_to: Position | None,
        limit: int,
    ) -> list[PlainRow]:
        """Return about `limit` rows of a query by position, and the rest of the last append."""

    def read(
        self,
        *,
        after: Position = START,
        up_to: Position | None = None,
        limit: int = 1000,
        types: Sequence[str] | None = None,
    ) -> list[Recorded]:
        """Return about `limit` events, oldest first; a page never splits an append."""
        rows: list[Any] = self.read_rows(after=after, up_to=up_to, limit=limit, types=types)
        return [Recorded(*row) for row in rows]

    def read_holding(
        self, part: bytes, *, after: Position, up_to: Position, limit: int
    ) -> list[Recorded]:
        """Return, as `read` does, the events whose state holds these bytes anywhere."""
        rows: list[Any] = self._page("read_holding", (part,), after, up_to, limit)
        return [Recorded(*row) for row in rows]

    def head(self) -> Head:
        """Return where the log ends now."""
        return Head(*self._ask("select_head")[0])

    def stream_version(self, stream: StreamName) -> Version:
        """Return the stream's version; 0 if there is no such stream."""
        rows = self._ask("select_stream", (stream,))
        return Version(rows[0][1] if rows else 0)

    def event_at(self, position: Position) -> Recorded | None:
        """Return the event at a position, if the log reaches that far."""
        return self._one_event("read_position", position)

    def event_by_key(self, key: IdempotencyKey) -> Recorded | None:
        """Return the event that holds an idempotency key."""
        return self._one_event("read_key", key)

    def _one_event(self, query: str, value: Position | IdempotencyKey) -> Recorded | None:
        rows = self._ask(query, (value,))
        return Recorded(*rows[0]) if rows else None

    def streams(self, prefix: str = "") -> Iterator[StreamInfo]:
        """Yield the streams whose names start with `prefix`, oldest first, in pages."""
        last = 0
        while rows := self._ask("list_streams", (last, prefix, prefix + "\U0010ffff", _PAGE)):
            for stream_id, name, version in rows:
                last = stream_id
                yield StreamInfo(StreamName(name), Version(version))

    def count_by_type(self) -> dict[str, int]:
        """Return how many events of each stored type there are."""
        return dict(self._ask("count_types"))

    def cursor_at(self, position: Position) -> Cursor:
        """Return a cursor at a position, with its leaf hash."""
        epoch = self.head().epoch
        if position == 0:
            return Cursor(epoch, position, b"")
        event = self.event_at(position)
        if event is None:
            raise CursorMismatch(position, "the log ends before it")
        return Cursor(epoch, position, leaf_hash(event))

    def verify_cursor(self, cursor: Cursor) -> None:
        """Raise `CursorMismatch` unless the log still holds what the cursor was taken from."""
        now = self.cursor_at(cursor.position)
        if now.epoch != cursor.epoch:
            raise CursorMismatch(cursor.position, f"epoch {now.epoch}, not {cursor.epoch}")
        if now.leaf != cursor.leaf:
            raise CursorMismatch(cursor.position, "another event stands there")

    def snapshot(self, stream: StreamName) -> Snapshot | None:
        """Return the stream's snapshot, if one fits this epoch and is not above the head."""
        rows = self._ask("select_snapshot", (stream,))
        return Snapshot(stream, *rows[0]) if rows else None

    def nodes(self) -> list[Beat]:
        """Return every node that ever beat."""
        return [Beat(*row) for row in self._ask("select_nodes")]
