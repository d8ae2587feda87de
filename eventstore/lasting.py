"""A trouble that lasts, said often enough to be found and seldom enough to be read."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

FIRST_SECONDS: Final = 2.0
LONGEST_SECONDS: Final = 300.0


class Lasting:
    """When to say that a trouble lasts: at once, then at doubling intervals up to 5 minutes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """All is well. `clock` is in seconds."""
        self._clock = clock
        self._next: float | None = None
        self._pause = FIRST_SECONDS

    @property
    def due(self) -> bool:
        """Whether it is to be said now."""
        return self._next is None or self._clock() >= self._next

    def met(self) -> bool:
        """Note that the trouble is there; tell whether to say so, which then counts as said."""
        if not self.due:
            return False
        self._next = self._clock() + self._pause
        self._pause = min(2 * self._pause, LONGEST_SECONDS)
        return True

    def over(self) -> bool:
        """Note that all is well; tell whether to say so: only after a trouble that was said."""
        said = self._next is not None
        self._next, self._pause = None, FIRST_SECONDS
        return said
