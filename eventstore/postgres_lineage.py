"""What this process has seen of a log on PostgreSQL, looked for again over every new connection.

Behind one address there may be another server tomorrow: a standby that was promoted and lagged, a
restored copy. Caches and decisions of this process rest on what it has read and appended; if the
log has lost any of that, nothing more may be written on such ground.
"""

from __future__ import annotations

import threading
from typing import Any, Final

import psycopg

from eventstore.types import Epoch, Position

_LOOK: Final = "SELECT epoch, (SELECT append_id FROM events WHERE position = %s) FROM head"


class Lineage:
    """The last event seen of one log. Safe on any thread."""

    def __init__(self) -> None:
        """Nothing has been seen yet."""
        self.connections = 0
        """How many connections were made: another one may lead to another copy of the log."""
        self.lost: Position | None = None
        """An event that was seen and is not there: nothing may be written any more, for good."""
        self._lock = threading.Lock()
        self._epoch: Epoch | None = None
        self._position = Position(0)
        self._append_id = b""

    def saw(self, position: Position, append_id: bytes) -> None:
        """Take note of an event that was read or appended."""
        if position > self._position:
            with self._lock:
                if position > self._position:
                    self._position, self._append_id = position, append_id

    def check(self, connection: psycopg.Connection[Any]) -> None:
        """Look over a new connection for what was seen; `lost` says so if it is not there.

        A log in another epoch was restored on purpose, and every append says which it expects.
        Raises `psycopg.Error`.
        """
        with self._lock:
            position, append_id = self._position, self._append_id
        row = connection.execute(_LOOK, (position,)).fetchone()
        with self._lock:
            self.connections += 1
            epoch, found = row or (None, None)
            if self._epoch is not None and epoch != self._epoch:
                self._position, self._append_id = Position(0), b""
            elif position and found != append_id:
                self.lost = position
            self._epoch = epoch
