"""The store's clock on one machine: the wall clock, but never behind what the log has recorded.

A wall clock that was ahead and is set right again must not stop the log's time: due times and
leases are measured in it. Where the log is ahead of the wall clock by more than a second, time
goes on from the log's last record at the monotonic clock's pace, until the wall clock catches up.
"""

from __future__ import annotations

import logging
import time

from eventstore.types import Clock, Micros

_logger = logging.getLogger(__name__)
TOLERANCE = 1_000_000
"""µs by which the log may be ahead without more ado (1 µs an append, or a small correction)."""


def monotonic_clock() -> Micros:
    """Return µs that never go back; only differences mean something."""
    return Micros(time.monotonic_ns() // 1000)


class StoreClock:
    """Time that neither stands still nor goes back behind the log. Safe from any thread."""

    def __init__(self, wall: Clock, monotonic: Clock = monotonic_clock) -> None:
        """Follow `wall` as long as it is not behind the log."""
        self._wall = wall
        self._monotonic = monotonic
        self._ahead: tuple[int, int] | None = None
        """A record of the log, and the monotonic time at which it was seen."""

    def now(self) -> Micros:
        """Return the store's time."""
        wall = self._wall()
        ahead = self._ahead
        if ahead is None:
            return wall
        own = ahead[0] + self._monotonic() - ahead[1]
        if wall >= own:
            self._ahead = None
            return wall
        return Micros(own)

    def observe(self, recorded_at: Micros) -> None:
        """Take note of the log's last record."""
        if recorded_at - self.now() <= TOLERANCE:
            return
        _logger.warning(
            "CLOCK_BEHIND_LOG seconds=%.1f: the wall clock was set back; the log goes on from its "
            "last record",
            (recorded_at - self._wall()) / 1_000_000,
        )
        self._ahead = (recorded_at, self._monotonic())
