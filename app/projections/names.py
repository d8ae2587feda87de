"""What the numbers of streams stand for, in bounded memory: asked for once, then known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eventstore.store import LogReader

LIVE_NAMES: Final = 20_000
"""Beside a busy event loop, where few streams are met at a time: 3 MB."""

BULK_NAMES: Final = 200_000
"""In a process of its own."""


class StreamNames:
    """The names of one log's streams. Belongs to one thread; its figures may be read on any."""

    def __init__(self, log: LogReader, bound: int) -> None:
        """Keep at most `bound` names, or as many as are asked for at once."""
        self.bound = bound
        self.hits = self.misses = self.evictions = 0
        self._log = log
        self._names: dict[int, str] = {}

    def __len__(self) -> int:
        """How many names are in memory."""
        return len(self._names)

    def of(self, numbers: set[int]) -> Mapping[int, str]:
        """Return names by number: at least these, until the next call.

        Where they would be too many, all others go. Raises `LogUnavailable`.
        """
        missing = numbers.difference(self._names)
        self.hits += len(numbers) - len(missing)
        self.misses += len(missing)
        if missing and len(self._names) + len(missing) > self.bound:
            self.evictions += len(self._names)
            self._names.clear()
            missing = numbers
        if missing:
            self._names.update(self._log.stream_names(missing))
        return self._names
