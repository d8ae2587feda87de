"""Aggregates in memory, one cell each, and how long they stay there."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from itertools import islice, takewhile
from typing import Generic, TypeVar

from app.caches import Figures
from eventstore.types import Epoch, StreamName, Version

S = TypeVar("S")

HOUR_SECONDS = 3600.0
LIFETIME = 24
"""Hours that an aggregate stays in memory unused."""

_MEASURED = 100
"""Looks at the memory that are timed when somebody asks what one takes."""


class Flight:
    """An append on its way to the disk, for those who wait for its end."""

    __slots__ = ("_error", "_landed", "_waiters")

    def __init__(self) -> None:
        self._error: BaseException | None = None
        self._landed = False
        self._waiters: list[asyncio.Future[None]] = []

    def land(self, error: BaseException | None) -> None:
        """Wake whoever waits: the append is durable (None), or has failed."""
        self._error = error
        self._landed = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def landed(self) -> BaseException | None:
        """Return, when it has ended, why it failed; None if it is durable."""
        if not self._landed:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        return self._error


class Cell(Generic[S]):
    """One aggregate in memory: as committed, and as it will be."""

    __slots__ = (
        "committed", "deciders", "dropped", "epoch", "in_flight", "live", "live_version",
        "read_only", "snapshot_version", "tail", "used", "version",
    )  # fmt: skip

    def __init__(self, committed: S, version: Version, epoch: Epoch, snapshot: Version) -> None:
        self.committed = committed
        self.version = version
        self.live = committed
        self.live_version = version
        self.epoch = epoch
        self.snapshot_version = snapshot
        self.in_flight = 0
        self.deciders = 0
        """How many decisions wait until nothing is in flight."""
        self.tail: Flight | None = None
        """The last append that is on its way to the disk."""
        self.read_only = False
        self.dropped = False
        """It was in memory and is not any more: it may be behind the log, and is not used again."""
        self.used = 0
        """The repository's age when it was used last."""

    def restarted(self) -> Cell[S]:
        """Return a cell that knows what is committed and nothing of what is in flight."""
        cell = Cell(self.committed, self.version, self.epoch, self.snapshot_version)
        cell.read_only = self.read_only
        cell.used = self.used
        return cell


class Cells(OrderedDict[StreamName, Cell[S]], Generic[S]):
    """The cells of a repository, the least recently used first. Belongs to one event loop."""

    def __init__(self, capacity: int) -> None:
        """Keep at most `capacity`, and those with an append under way."""
        super().__init__()
        self._capacity = capacity
        self._hits = self._misses = 0
        self._evictions = self._expirations = 0
        self._age = 0

    def find(self, stream: StreamName) -> Cell[S] | None:
        """Return a stream's cell to somebody who will use it."""
        cell = self.get(stream)
        if cell is None:
            self._misses += 1
        else:
            self._hits += 1
            self.use(stream, cell)
        return cell

    def use(self, stream: StreamName, cell: Cell[S]) -> None:
        """Note that a cell is used."""
        cell.used = self._age
        self.move_to_end(stream)

    def keep(self, stream: StreamName, cell: Cell[S]) -> Cell[S]:
        """Add what was loaded, unless there is a cell already; return the one that is kept."""
        kept = self.setdefault(stream, cell)
        self.use(stream, kept)
        self.evict()
        return kept

    def drop(self, stream: StreamName) -> None:
        """Forget a stream's cell, for good: whoever still holds it loads another."""
        self.pop(stream).dropped = True

    def evict(self) -> None:
        """Forget what is beyond the capacity and idle, the least recently used first."""
        surplus = len(self) - self._capacity
        if surplus <= 0:
            return
        idle = (name for name, cell in self.items() if cell.in_flight == 0)
        for name in list(islice(idle, surplus)):
            self.drop(name)
            self._evictions += 1

    def grow_older(self) -> None:
        """Forget what was not used for `LIFETIME` calls of this: called once an hour."""
        self._age += 1
        # The least recently used come first: nothing old is behind one that is not.
        unused = takewhile(lambda item: self._age - item[1].used > LIFETIME, self.items())
        for name, cell in list(unused):
            if cell.in_flight == 0:
                self.drop(name)
                self._expirations += 1

    def figures(self) -> Figures:
        """Return how the memory does."""
        return Figures(
            size=len(self),
            limit=self._capacity,
            ttl_seconds=LIFETIME * HOUR_SECONDS,
            hits=self._hits,
            misses=self._misses,
            evictions=self._evictions,
            expirations=self._expirations,
            access_seconds=self._access_seconds(),
        )

    def _access_seconds(self) -> float:
        """Return what a look takes now: measured when somebody asks, and not by every message."""
        some = list(islice(self, _MEASURED))
        begun = time.perf_counter_ns()
        for stream in some:
            self.get(stream)
        return (time.perf_counter_ns() - begun) / 1e9 / len(some) if some else 0.0
