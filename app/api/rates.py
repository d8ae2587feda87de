"""How often one key may ask: a token bucket for each, in this node's memory (H4).

A bucket holds `burst` requests and is filled again by `per_second` of them each second. A full one
is as good as none, so each is forgotten when it would be full whatever was taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from app.caches import Expiring, Figures

MOST: Final = 10_000
"""Buckets in memory. The key that is pushed out begins with a full one: too many for anybody."""


class Rates:
    """The buckets of the keys that have asked. Belongs to one event loop."""

    def __init__(
        self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin with full buckets; `per_second` 0 means no limit. `clock` is in seconds."""
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._buckets: Expiring[str, tuple[float, float]] = Expiring(
            limit=MOST, ttl=burst / per_second if per_second else 0.0, clock=clock
        )  # requests left, as of when

    def wait(self, key: str) -> float:
        """Take one request of a key; return 0, or in how many seconds there will be one."""
        if not self._per_second:
            return 0.0
        now = self._clock()
        left, then = self._buckets.get(key) or (float(self._burst), now)
        left = min(float(self._burst), left + (now - then) * self._per_second)
        if left < 1.0:
            self._buckets.put(key, (left, now))
            return (1.0 - left) / self._per_second
        self._buckets.put(key, (left - 1.0, now))
        return 0.0

    def figures(self) -> Figures:
        """Return how the buckets do."""
        return self._buckets.figures()
