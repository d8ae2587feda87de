"""Skipping: an operator tells a read model to pass over one event that it cannot take.

Who skipped what, and why, is recorded in a ledger that outlives the read models: `views.db` only
holds a copy of it, and learns it again after it was deleted. An event is meant by its position and
its leaf hash: after a restore another event may stand at that position, and that one is not meant.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from eventstore.integrity import leaf_hash
from eventstore.store import LogReader
from eventstore.types import Micros, Position


class Skip(msgspec.Struct, frozen=True):
    """One event that one model is not shown."""

    model: str
    position: Position
    leaf: bytes
    """Leaf hash of the event."""
    by: str
    """Who decided it."""
    why: str
    at: Micros


class SkipLedger(Protocol):
    """Where skips are recorded for good."""

    def record(self, skip: Skip) -> None:
        """Record a skip; return when it is durable."""

    def recorded(self) -> Sequence[Skip]:
        """Return every skip, oldest first."""


class FileLedger:
    """A `SkipLedger` in a file of JSON lines, which only grows."""

    def __init__(self, path: Path) -> None:
        """Use the file; it is made with the first skip."""
        self._path = path

    def record(self, skip: Skip) -> None:
        """Append a line and wait for the disk. Raises `OSError`."""
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(skip) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def recorded(self) -> Sequence[Skip]:
        """Return every skip, oldest first. Raises `OSError` or `msgspec.MsgspecError`."""
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        return [msgspec.json.decode(line, type=Skip) for line in lines]


def skip_ledger(bot_directory: Path) -> SkipLedger:
    """Return where a bot's skips are recorded."""
    return FileLedger(bot_directory / "skips.jsonl")


def still_there(skip: Skip, log: LogReader) -> bool:
    """Tell whether the log still holds the event that was meant."""
    event = log.event_at(skip.position)
    return event is not None and leaf_hash(event) == skip.leaf
