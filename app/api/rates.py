"""How often one key may ask: a token bucket for each, in this node's memory (H4).

A bucket holds `burst` requests and is filled again by `per_second` of them each second.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Rates:
    """The buckets of the keys that have asked. Belongs to one event loop."""

    def __init__(
        self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin with full buckets; `per_second` 0 means no limit. `clock` is in seconds."""
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # requests left, as of when

    def wait(self, key: str) -> float:
        """Take one request of a key; return 0, or in how many seconds there will be one."""
        if not self._per_second:
            return 0.0
        now = self._clock()
        left, then = self._buckets.get(key, (float(self._burst), now))
        left = min(float(self._burst), left + (now - then) * self._per_second)
        if left < 1.0:
            self._buckets[key] = left, now
            return (1.0 - left) / self._per_second
        self._buckets[key] = left - 1.0, now
        return 0.0
