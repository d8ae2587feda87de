"""A circuit breaker: when a provider is down, ask it now and then instead of with every turn.

A pure state machine: the clock comes in as an argument (seconds that never run backwards), and
whoever calls decides what counts as a failure of the provider: `Unreachable`, and 429 without
Retry-After. Anything else that it answered shows that it is there.

    closed ──(N failures in a row)──> open ──(cool-down)──> half-open ──(probe ok)──> closed
                                        ^────────────(probe failed)───────┘
"""

from __future__ import annotations

from typing import Literal

State = Literal["closed", "open", "half-open"]


class Breaker:
    """Lets calls through, or says how long to wait. Belongs to one event loop."""

    def __init__(self, *, failures: int = 5, cool_down: float = 10.0) -> None:
        if failures < 1 or cool_down <= 0:
            msg = f"a breaker needs failures ≥ 1 and cool_down > 0, not {failures} and {cool_down}"
            raise ValueError(msg)
        self._limit = failures
        self._cool_down = cool_down
        self._in_a_row = 0
        self._until: float | None = None
        """None: closed. Else the time of the next probe."""
        self._probing = False

    @property
    def state(self) -> State:
        """The present state, for a health page."""
        if self._until is None:
            return "closed"
        return "half-open" if self._probing else "open"

    def allow(self, now: float) -> float:
        """Return 0.0 if a call may go out now, else the seconds to wait before asking again.

        After the cool-down one caller gets 0.0: its call is the probe, to be `record`ed like any
        other. A probe that is never recorded (its task died) gives way to another after one more
        cool-down.
        """
        if self._until is None:
            return 0.0
        if now < self._until:
            return min(self._until - now, self._cool_down)  # a sum of floats may exceed its parts
        self._probing = True
        self._until = now + self._cool_down
        return 0.0

    def record(self, *, ok: bool, now: float) -> None:
        """Say how a call ended.

        While open, calls that were let through earlier come to their end: they are ignored, for
        they say nothing about now.
        """
        if self._until is not None and not self._probing:
            return
        if ok:
            self._in_a_row = 0
            self._until = None
            self._probing = False
            return
        self._in_a_row += 1
        if self._probing or self._in_a_row >= self._limit:
            self._until = now + self._cool_down
            self._probing = False
