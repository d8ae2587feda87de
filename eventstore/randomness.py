"""Random bytes for nonces, salts and ids, from a pool that `os.urandom` fills.

Each call of `os.urandom` gives up the interpreter's lock, three times an append: with a busy event
loop that is more than the bytes cost. The pool is dropped in a forked child: two processes must
never draw the same nonce.
"""

from __future__ import annotations

import os
import threading

POOL_BYTES = 16_384


class RandomPool:
    """Hands out bytes once each, to any thread."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._pool = b""
        self._next = 0

    def take(self, count: int) -> bytes:
        """Return `count` fresh random bytes; at most `POOL_BYTES`."""
        with self._lock:
            start = self._next
            end = start + count
            if end > len(self._pool):
                self._pool = os.urandom(POOL_BYTES)
                start, end = 0, count
            self._next = end
            return self._pool[start:end]

    def forget(self) -> None:
        """Drop what is left, and the lock, which another thread may have held at the fork."""
        self._lock = threading.Lock()
        self._pool = b""
        self._next = 0


_POOL = RandomPool()
os.register_at_fork(after_in_child=_POOL.forget)

random_bytes = _POOL.take
"""Return so many fresh random bytes."""
