"""Which positions of a log are known already, while the rest of it is read."""

from __future__ import annotations

from collections import deque
from typing import Final

from eventstore.types import Position

STRETCHES: Final = 5_000
"""Stretches that are noted; of more, those in front are forgotten, and read."""


class Stretches:
    """Positions of a log, as stretches without gaps. They come in their order."""

    def __init__(self) -> None:
        """Start empty."""
        self._stretches: deque[tuple[Position, Position]] = deque(maxlen=STRETCHES)

    def add(self, first: Position, last: Position) -> None:
        """Add positions that follow those before; others are not noted."""
        stretches = self._stretches
        if stretches:
            begin, end = stretches[-1]
            if first <= end:
                return
            if first == end + 1:
                stretches[-1] = (begin, last)
                return
        stretches.append((first, last))

    def end_of(self, after: Position) -> Position:
        """Return the end of the stretch that follows `after`, or `after`. Forget what is before."""
        stretches = self._stretches
        while stretches and stretches[0][1] <= after:
            stretches.popleft()
        if stretches and stretches[0][0] <= after + 1:
            return stretches[0][1]
        return after

    def clear(self) -> None:
        """Forget all."""
        self._stretches.clear()
