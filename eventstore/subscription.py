"""Follow the log: catch up, then live; every position once, in order, without gaps.

A subscription is a loop that reads the log after its cursor. What wakes it is only a hint: the
writer of its own process calls `wake`, and how commits of other processes show is the store's
affair (`LogReader.watch`). Losing a hint costs time, never an event.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from eventstore.errors import CursorMismatch
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
        if after is not None:
            log.verify_cursor(after)
        self._log = log
        self._types = types
        self._page = page
        self._epoch = after.epoch if after else log.head().epoch
        self._position = after.position if after else Position(0)
        self._watch = log.watch()
        self._stopped = False

    @property
    def position(self) -> Position:
        """The last position that was handed out (or passed over by the filter)."""
        return self._position

    def wake(self, _: Position | None = None) -> None:
        """Say that there may be news. From any thread."""
        self._watch.wake()

    def stop(self) -> None:
        """End the iteration after the batch in hand. From any thread."""
        self._stopped = True
        self._watch.wake()

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
