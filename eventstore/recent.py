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

    def get(self, key: K) -> V | None:
        """Return the item, now the one used last."""
        with self._lock:
            item = self._items.get(key)
            if item is not None:
                self._items.move_to_end(key)
            return item

    def put(self, key: K, value: V) -> None:
        """Add or replace an item; past the bound, the one unused for longest goes."""
        with self._lock:
            self._items[key] = value
            self._items.move_to_end(key)
            if len(self._items) > self._bound:
                self._items.popitem(last=False)

    def drop(self, unwanted: Callable[[K, V], bool]) -> None:
        """Remove every item that is unwanted. Looks at all of them."""
        with self._lock:
            for key in [key for key, value in self._items.items() if unwanted(key, value)]:
                del self._items[key]
