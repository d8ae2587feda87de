"""What was used lately, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A bounded map that drops what was not used for longest. Safe on any thread."""

    def __init__(self, bound: int) -> None:
        """Keep at most `bound` items."""
        self._bound = bound
        self._items: OrderedDict[K, V] = OrderedDict()
        self._lock = Lock()
        self.hits = self.misses = self.evictions = 0

    @property
    def bound(self) -> int:
        """The most items that are kept."""
        return self._bound

    def __len__(self) -> int:
        """How many are kept now."""
        return len(self._items)

    def get(self, key: K) -> V | None:
        """Return the item, now the one used last."""
        with self._lock:
            item = self._items.get(key)
            if item is None:
                self.misses += 1
            else:
                self.hits += 1
                self._items.move_to_end(key)
            return item

    def put(self, key: K, value: V) -> None:
        """Add or replace an item; past the bound, the one unused for longest goes."""
        with self._lock:
            self._items[key] = value
            self._items.move_to_end(key)
            if len(self._items) > self._bound:
                self._items.popitem(last=False)
                self.evictions += 1

    def drop(self, unwanted: Callable[[K, V], bool]) -> None:
        """Remove every item that is unwanted. Looks at all of them."""
        with self._lock:
            for key in [key for key, value in self._items.items() if unwanted(key, value)]:
                del self._items[key]
