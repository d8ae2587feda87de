"""What is kept in memory: every bounded map has a name, a size, a time to live and its figures.

Expiry frees memory only. Whatever a map has forgotten, the log knows (docs/caches.md).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, Generic, Protocol, TypeVar

import msgspec

K = TypeVar("K")
V = TypeVar("V")

_SAMPLED: Final = 16
"""One access of so many is timed: the clock costs as much as the access."""


class Figures(msgspec.Struct, frozen=True):
    """One map, as it is now. A number that a map does not keep is 0."""

    size: int
    limit: int = 0
    """Most items; 0: bounded otherwise."""
    ttl_seconds: float = 0
    """Unused items go after that; 0: never."""
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    """Items that had to make room."""
    expirations: int = 0
    access_seconds: float = 0
    """What an access takes on average."""


class Bounded(Protocol):
    """A map that is bounded by its size alone."""

    @property
    def bound(self) -> int:
        """The most items that are kept."""

    @property
    def hits(self) -> int:
        """How often an item that was asked for was there."""

    @property
    def misses(self) -> int:
        """How often it was not."""

    @property
    def evictions(self) -> int:
        """How many items had to make room."""

    def __len__(self) -> int:
        """How many are kept now."""


def figures_of(kept: Bounded) -> Figures:
    """Return how a bounded map does."""
    return Figures(
        size=len(kept),
        limit=kept.bound,
        hits=kept.hits,
        misses=kept.misses,
        evictions=kept.evictions,
    )


class Expiring(Generic[K, V]):
    """A bounded map: the item unused for longest makes room, each goes `ttl` s after it was put.

    Belongs to one event loop.
    """

    def __init__(
        self, *, limit: int, ttl: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Keep at most `limit` items; `clock` (seconds) never goes back."""
        self._limit = limit
        self._ttl = ttl
        self._clock = clock
        self._items: OrderedDict[K, tuple[V, float]] = OrderedDict()
        self._hits = self._misses = self._evictions = self._expirations = 0
        self._timed, self._spent = 0, 0

    def __len__(self) -> int:
        """How many items are in memory, expired ones included that nobody has asked for since."""
        return len(self._items)

    def get(self, key: K) -> V | None:
        """Return the item, now the one used last; None if it was never put, or is gone."""
        if (self._hits + self._misses) % _SAMPLED:
            return self._get(key)
        begun = time.perf_counter_ns()
        found = self._get(key)
        self._spent += time.perf_counter_ns() - begun
        self._timed += 1
        return found

    def _get(self, key: K) -> V | None:
        found = self._live(key)
        if found is None:
            self._misses += 1
            return None
        self._hits += 1
        self._items.move_to_end(key)
        return found

    def peek(self, key: K) -> V | None:
        """Return the item without using it, and without counting."""
        return self._live(key) if key in self._items else None

    def _live(self, key: K) -> V | None:
        kept = self._items.get(key)
        if kept is None:
            return None
        if kept[1] <= self._clock():
            del self._items[key]
            self._expirations += 1
            return None
        return kept[0]

    def put(self, key: K, value: V) -> None:
        """Add or replace an item: its time begins again."""
        self._items[key] = (value, self._clock() + self._ttl)
        self._items.move_to_end(key)
        if len(self._items) > self._limit:
            self._items.popitem(last=False)
            self._evictions += 1

    def replace(self, key: K, value: V) -> None:
        """Replace an item that is there; neither its time nor its place changes."""
        self._items[key] = (value, self._items[key][1])

    def discard(self, key: K) -> None:
        """Forget an item, if it is there."""
        self._items.pop(key, None)

    def figures(self) -> Figures:
        """Return how the map does."""
        return Figures(
            size=len(self._items),
            limit=self._limit,
            ttl_seconds=self._ttl,
            hits=self._hits,
            misses=self._misses,
            evictions=self._evictions,
            expirations=self._expirations,
            access_seconds=self._spent / self._timed / 1e9 if self._timed else 0.0,
        )


class Registry:
    """The maps of one bot, or those that all bots of a node share, by name."""

    def __init__(self) -> None:
        """Know none."""
        self._maps: dict[str, Callable[[], Figures]] = {}

    def add(self, name: str, figures: Callable[[], Figures]) -> None:
        """Show a map under a name. Raises `ValueError` if another has it."""
        if name in self._maps:
            msg = f"there are two maps called {name}"
            raise ValueError(msg)
        self._maps[name] = figures

    def figures(self) -> dict[str, Figures]:
        """Return how each map does."""
        return {name: figures() for name, figures in self._maps.items()}

    def numbers(self) -> Iterable[tuple[str, float]]:
        """Return the same as `/metrics` names it: `cache_MAP_FIGURE`."""
        for name, figures in self.figures().items():
            for field in Figures.__struct_fields__:
                yield f"cache_{name}_{field}", float(getattr(figures, field))
