"""Parts in doubt: nobody can say yet whether they were sent, and when each is looked for again.

Only this process remembers it, and nothing is lost with it: who forgot looks at once, and looking
sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from app.aggregates.open_work import Delivery
from app.conversation.backoff import MAX_RETRY_AFTER_SECONDS, delay
from app.conversation.policy import micros

LOOKS_AT_ONCE = 8
"""Looks at the gateway's lists while one of them could not be read: most slots stay for turns."""

_FORGET = 4 * micros(MAX_RETRY_AFTER_SECONDS)
"""µs after which what was put off and never looked for again is settled otherwise."""

_Flight = tuple[str, int, int | None]


class _Later(NamedTuple):
    looks: int
    at: int
    signs: int
    """How many there were at the last look: a new one is worth another, at once."""


class Doubts:
    """When parts in flight are looked for again. Belongs to one event loop."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        """Know of none."""
        self._jitter = jitter
        self._put_off: dict[_Flight, _Later] = {}
        self._looking = 0

    def __len__(self) -> int:
        """Return how many parts are put off."""
        return len(self._put_off)

    def due_at(self, delivery: Delivery) -> int:
        """Return when the part in flight may be looked for again (µs); 0: at once."""
        later = self._put_off.get(_flight(delivery))
        return later.at if later is not None and later.signs == len(delivery.signs) else 0

    def put_off(self, delivery: Delivery, *, now: int, retry_after: float | None) -> None:
        """Look for the part later: after a growing pause, and not before the gateway wants."""
        before = self._put_off.pop(_flight(delivery), None)
        looks = 1 if before is None else before.looks + 1
        wait = delay(looks, retry_after=retry_after, jitter=self._jitter())
        self._put_off[_flight(delivery)] = _Later(looks, now + micros(wait), len(delivery.signs))
        self._forget(now)

    def settle(self, delivery: Delivery) -> None:
        """Forget a part: it is known now what became of it."""
        self._put_off.pop(_flight(delivery), None)

    @property
    def crowded(self) -> bool:
        """Tell whether another look must wait, because lists cannot be read and many try."""
        return bool(self._put_off) and self._looking >= LOOKS_AT_ONCE

    @contextmanager
    def look(self) -> Iterator[None]:
        """Count a look for as long as it lasts."""
        self._looking += 1
        try:
            yield
        finally:
            self._looking -= 1

    def _forget(self, now: int) -> None:
        """Drop what others have settled: the oldest come first."""
        while self._put_off:
            oldest = next(iter(self._put_off))
            if self._put_off[oldest].at > now - _FORGET:
                return
            del self._put_off[oldest]


def _flight(delivery: Delivery) -> _Flight:
    """Name one start of one part."""
    return delivery.run, delivery.next_part, delivery.in_flight
