"""Follow the log: catch up, then live; every position once, in order, without gaps.

A subscription is a loop that reads the log after its cursor. What wakes it is only a hint: the
writer of its own process calls `wake`, and commits of other processes show in the database's
change counter, looked at every 10 ms. Losing a hint costs milliseconds, never an event.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import msgspec

from eventstore.errors import CursorMismatch
from eventstore.store import LogReader
from eventstore.types import Cursor, Epoch, Position, Recorded

POLL_SECONDS = 0.01


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
        if after is not None:
            log.verify_cursor(after)
        self._log = log
        self._types = types
        self._page = page
        self._epoch = after.epoch if after else log.head().epoch
        self._position = after.position if after else Position(0)
        self._seen_change = -1
        self._hint = threading.Event()
        self._stopped = False

    @property
    def position(self) -> Position:
        """The last position that was handed out (or passed over by the filter)."""
        return self._position

    def wake(self, _: Position | None = None) -> None:
        """Say that there may be news. From any thread."""
        self._hint.set()

    def stop(self) -> None:
        """End the iteration after the batch in hand. From any thread."""
        self._stopped = True
        self._hint.set()

    def poll(self) -> Batch | None:
        """Return what is new, at most about a page; None if nothing is. Never waits.

        Raises `CursorMismatch` if the log was restored or went back behind this cursor.
        """
        head = self._log.head()
        if head.epoch != self._epoch:
            raise CursorMismatch(self._position, f"epoch {head.epoch}, not {self._epoch}")
        if head.position < self._position:
            raise CursorMismatch(self._position, f"the log now ends at {head.position}")
        if head.position == self._position:
            return None
        events = self._log.read(
            after=self._position, up_to=head.position, limit=self._page, types=self._types
        )
        full = len(events) >= self._page
        self._position = events[-1].position if full else head.position
        return Batch(events, self._epoch, self._position)

    def wait(self, timeout: float) -> None:
        """Return when there may be news, at the latest after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not self._stopped:
            change = self._log.change_counter()
            if change != self._seen_change:
                self._seen_change = change
                return
            left = deadline - time.monotonic()
            if left <= 0 or self._hint.wait(min(POLL_SECONDS, left)):
                self._hint.clear()
                return

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches until stopped, waiting for news in between."""
        while not self._stopped:
            batch = self.poll()
            if batch is None:
                self.wait(1.0)
            else:
                yield batch
