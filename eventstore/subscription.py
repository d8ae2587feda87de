"""Follow the log: catch up, then live; every position once, in order, without gaps.

A subscription is a loop that reads the log after its cursor. What wakes it is only a hint: the
writer of its own process calls `wake`, and how commits of other processes show is the store's
affair (`LogReader.watch`). Losing a hint costs time, never an event.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from eventstore.errors import CursorMismatch
from eventstore.integrity import leaf_hash
from eventstore.store import LogReader
from eventstore.types import Cursor, Epoch, Position, Recorded

_LOOK_SECONDS = 1.0
"""after which an iteration looks at the log though nobody said anything"""


class Batch(msgspec.Struct, frozen=True):
    """Events in order, and how far the log was seen. `up_to` also covers filtered-out events."""

    events: list[Recorded]
    epoch: Epoch
    up_to: Position


class Subscription:
    """Reads the log from a cursor on, in batches. One thread iterates; any thread may wake."""

    def __init__(
        self,
        log: LogReader,
        *,
        after: Cursor | None = None,
        types: Sequence[str] | None = None,
        page: int = 2000,
    ) -> None:
        """Start after `after`. Raises `CursorMismatch` if the log is not the cursor's."""
        self._connections = log.connections()
        if after is not None:
            log.verify_cursor(after)
        self._log = log
        self._types = types
        self._page = page
        self._cursor = after or Cursor(log.head().epoch, Position(0), b"")
        self._watch = log.watch()
        self._stopped = False

    @property
    def cursor(self) -> Cursor:
        """The place behind what was handed out last: it holds only in the log that was read."""
        return self._cursor

    @property
    def position(self) -> Position:
        """The last position that was handed out (or passed over by the filter)."""
        return self._cursor.position

    def wake(self, _: Position | None = None) -> None:
        """Say that there may be news. From any thread."""
        self._watch.wake()

    def stop(self) -> None:
        """End the iteration after the batch in hand. From any thread."""
        self._stopped = True
        self._watch.wake()

    def poll(self) -> Batch | None:
        """Return what is new, at most about a page; None if nothing is. Never waits.

        Raises `CursorMismatch` if the log was restored or went back behind this cursor, or if it is
        another one after a reconnect.
        """
        at = self._cursor
        head = self._log.head()
        if head.epoch != at.epoch:
            raise CursorMismatch(at.position, f"epoch {head.epoch}, not {at.epoch}")
        if head.position < at.position:
            raise CursorMismatch(at.position, f"the log now ends at {head.position}")
        if head.position == at.position:
            self._compare()
            return None
        events = self._log.read(
            after=at.position, up_to=head.position, limit=self._page, types=self._types
        )
        full = len(events) >= self._page
        reached = full or (events and events[-1].position == head.position)
        last = events[-1] if reached else self._log.event_at(head.position)
        self._compare()
        if last is None:
            raise CursorMismatch(head.position, "the log ended before it a moment later")
        self._cursor = Cursor(at.epoch, last.position, leaf_hash(last))
        return Batch(events, at.epoch, last.position)

    def pass_over(self, up_to: Position) -> None:
        """Go on behind `up_to` without reading what comes before it: it is known.

        Raises `CursorMismatch` as `poll` does.
        """
        at = self._cursor
        if up_to <= at.position:
            return
        head = self._log.head()
        if head.epoch != at.epoch:
            raise CursorMismatch(at.position, f"epoch {head.epoch}, not {at.epoch}")
        last = self._log.event_at(up_to)
        self._compare()
        if last is None:
            raise CursorMismatch(up_to, f"the log now ends at {head.position}")
        self._cursor = Cursor(at.epoch, up_to, leaf_hash(last))

    def _compare(self) -> None:
        """Compare the cursor with the log, if that was reached over a new connection."""
        while (connections := self._log.connections()) != self._connections:
            self._log.verify_cursor(self._cursor)
            self._connections = connections

    def wait(self, timeout: float) -> bool:
        """Return True when there may be news, False after `timeout` seconds, or if stopped."""
        return not self._stopped and self._watch.wait(timeout)

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches until stopped, waiting for news in between."""
        while not self._stopped:
            batch = self.poll()
            if batch is None:
                self.wait(_LOOK_SECONDS)
            else:
                yield batch
