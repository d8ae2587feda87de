"""What others on the same hardware leave of its memory, which no load average shows.

Processes of other virtual machines share the last cache and the memory's bandwidth. A loop that
counts is as fast as ever then; what reads much, as a server with a database does, takes two or
three times as long, and a handler that does nothing loses little. A ratio measured meanwhile says
more about the neighbours than about the program.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from random import Random
from typing import Final

_BYTES: Final = 64 << 20
"""More than the last cache of a processor keeps for one reader."""
_READS: Final = 300_000


class Memory:
    """Reads at random places of more memory than caches hold, and remembers how fast that was."""

    def __init__(self) -> None:
        """Take 64 MiB."""
        self._numbers = array("q", bytes(_BYTES))
        places = Random(1).sample(range(len(self._numbers)), _READS)
        self._places = array("l", places)
        self._rates: list[float] = []

    def read(self) -> None:
        """Measure once; tens of milliseconds."""
        numbers = self._numbers
        begin = time.perf_counter()
        for place in self._places:
            numbers[place]
        self._rates.append(_READS / (time.perf_counter() - begin))

    def before(self, arm: Callable[[], float]) -> Callable[[], float]:
        """A round that is measured after a reading."""

        def both() -> float:
            self.read()
            return arm()

        return both

    def __str__(self) -> str:
        """The slowest and the fastest reading, millions a second."""
        slow, fast = min(self._rates) / 1e6, max(self._rates) / 1e6
        return f"{slow:.1f}–{fast:.1f} million random reads of memory a second between the rounds"
