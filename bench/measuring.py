"""How things are measured: in rounds, ours and the peer's in turn, so that both share the noise.

Only ratios travel from one machine to another, and only between what was measured in one run.
"""

from __future__ import annotations

import gc
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import msgspec

Better = Literal["higher", "lower"]
Arm = Callable[[], float]
"""Runs one round and returns its number."""


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the table."""

    name: str
    what: str
    ours: float | None = None
    peer: float | None = None
    peer_name: str = ""
    ratio: float | None = None
    """Median over the rounds of ours ÷ peer's; none where `ours` itself has the target."""
    target: float | None = None
    """What the ratio, or else `ours`, must reach, or stay under if lower is better."""
    better: Better = "higher"
    unit: str = ""
    data_set: str = ""
    goal: float | None = None
    """What `ours` is to reach one day; missing it fails nothing."""
    rounds: tuple[tuple[float, float], ...] = ()
    ok: bool | None = None
    """None: it could not be measured, and `skipped` says why."""
    skipped: str = ""
    notes: str = ""


class PeerMissing(Exception):
    """A peer cannot run here: the message says why."""


@contextmanager
def collecting_as_served() -> Iterator[None]:
    """Collect garbage as `hilo serve` does, for all sides: a data set's people are no garbage."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def interleaved(ours: Arm, peer: Arm, rounds: int) -> tuple[tuple[float, float], ...]:
    """Measure both in turn, `rounds` times, once what made their data sets is on the disk."""
    os.sync()
    return tuple((ours(), peer()) for _ in range(rounds))


def compare(  # noqa: PLR0913 - a line of the table has as many columns
    name: str,
    what: str,
    rounds: Sequence[tuple[float, float]],
    *,
    peer_name: str,
    target: float | None,
    unit: str,
    data_set: str,
    better: Better = "higher",
    goal: float | None = None,
    notes: str = "",
) -> Row:
    """The line for measured rounds: medians of both sides, and the median ratio."""
    ratio = statistics.median(mine / theirs for mine, theirs in rounds)
    return Row(
        name=name,
        what=what,
        ours=statistics.median(mine for mine, _ in rounds),
        peer=statistics.median(theirs for _, theirs in rounds),
        peer_name=peer_name,
        ratio=ratio,
        target=target,
        better=better,
        unit=unit,
        data_set=data_set,
        goal=goal,
        rounds=tuple(rounds),
        ok=target is None or meets(ratio, target, better),
        notes=notes,
    )


def limit(  # noqa: PLR0913 - a line of the table has as many columns
    name: str,
    what: str,
    value: float,
    *,
    target: float,
    unit: str,
    data_set: str,
    notes: str = "",
) -> Row:
    """The line for something that has no peer, only a limit that it stays under."""
    return Row(
        name=name,
        what=what,
        ours=value,
        target=target,
        better="lower",
        unit=unit,
        data_set=data_set,
        ok=value <= target,
        notes=notes,
    )


def meets(value: float, target: float, better: Better) -> bool:
    """Whether a number reaches its target."""
    return value >= target if better == "higher" else value <= target


def percentile(values: Sequence[float], share: float) -> float:
    """The value under which `share` (0 to 1) of the values lie, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
