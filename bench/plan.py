"""How big a run of the benchmarks is: rounds, the size of the long log, the work of a round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from bench.datasets import DataSets

FULL: Final = 1_000_000
"""Events of the long log, unless `--events` says otherwise."""
_FULL_WORK: Final = 50_000
"""A long log of so many events, or more, gets rounds of full size; tests ask for less."""


class Plan(msgspec.Struct, frozen=True):
    """What every row is given."""

    sets: DataSets
    rounds: int
    say: Callable[[str], None]

    def work(self, full: int, *, least: int = 1) -> int:
        """The work of a round (turns, requests, …): `full`, unless the whole run is a tiny one."""
        return max(least, full * min(self.sets.events, _FULL_WORK) // _FULL_WORK)

    def seconds(self, full: float) -> float:
        """The length of a timed round."""
        return max(0.3, full * min(self.sets.events, _FULL_WORK) / _FULL_WORK)
