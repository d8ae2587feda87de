"""What a read model is: its tables, the events it wants, and what a batch of them does to it."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from sqlite_utils.migrations import Migrations

from eventstore.codec import Event

Seen = tuple[int, str, int, type[Event], Event | None]
"""An event as a model gets it: position, stream, recorded_at (µs), class, and the event itself.

The event may be None if the model has its class in `unread`. A plain tuple: millions are made.
"""


class Session(ABC):
    """A read model's part in one transaction: any number of batches, then the end.

    What `apply` and `flush` write must depend on nothing but the rows and the events: no clock, no
    other file, no gateway. Then a rebuild gives the same rows, and can never repeat a side effect.

    A session whose transaction was committed may be used for the next one, if nobody has written to
    the file in between: what it remembers of its rows after `flush` is true until then.
    """

    @abstractmethod
    def apply(self, batch: Sequence[Seen]) -> None:
        """Take the events, oldest first; write what they change, now or in `flush`."""

    @abstractmethod
    def flush(self) -> None:
        """Write what is not written yet: the transaction is about to commit."""


class ReadModel(ABC):
    """A view of the log that can be thrown away and made again from it."""

    name: ClassVar[str]
    """As operators know it; also the name of its set of migrations."""

    version: ClassVar[int]
    """Changed whenever the same log would give other rows: it is then rebuilt from the start."""

    tables: ClassVar[tuple[str, ...]]
    """The tables and SQL views that `migrations` make: what is dropped, compared and switched."""

    migrations: ClassVar[Migrations]
    """Makes the tables. What leaves the rows as they are (an index) is one more migration."""

    events: ClassVar[tuple[type[Event], ...]]
    """The classes it wants; SQL skips the others."""

    unread: ClassVar[frozenset[type[Event]]] = frozenset()
    """Those of `events` whose state it does not need: they are not decoded."""

    @abstractmethod
    def session(self, db: sqlite3.Connection) -> Session:
        """Take part in the transaction that is open on `db`."""
