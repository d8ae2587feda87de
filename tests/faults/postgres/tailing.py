"""The harness that finds a log whose readers can skip an event: one writer held, another free.

A reader that follows a log skips an event when a later position becomes visible before an earlier
one. That needs a transaction that has its position and has not committed, while another commits:
a trigger holds the first at exactly that place, for as long as the test wants. A log that hands
out positions under a lock makes the other writer wait, and both come in order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import psycopg
from psycopg.sql import SQL, Identifier

from tests.postgres_home import PATIENCE

HELD = "Held"
FREE = "Free"
LAST = "Last"
"""Types of events: the trigger holds the first; a reader stops at the last."""

_LOCK = 7_007


class Tailed(Protocol):
    """A log on PostgreSQL, of whatever make."""

    table: tuple[str, str]
    """Schema and name of the table that events are inserted into."""
    type_column: str

    def write(self, kind: str) -> int:
        """Append one event of this type to a stream of its own; return its position."""

    def follow(self) -> Iterator[tuple[int, str]]:
        """Yield position and type of every event, from the first on, for ever."""

    def stored(self) -> list[int]:
        """All positions that are in the log now, in order."""


class Seen(NamedTuple):
    """What the harness found out."""

    overtaken: bool
    """The free writer committed while the held one had its position already."""
    readers: list[list[int]]
    stored: list[int]

    @property
    def skipped(self) -> list[int]:
        """Positions that some reader never saw."""
        return sorted({p for seen in self.readers for p in set(self.stored) - set(seen)})


def hold_one_writer(log: Tailed, url: str, *, readers: int = 2) -> Seen:
    """Let one writer overtake another, if the log lets it, before the eyes of tailing readers."""
    log.write(FREE)
    _install_trigger(log, url)
    pool = ThreadPoolExecutor(readers + 2)
    passed = threading.Condition()
    seen: list[list[int]] = [[] for _ in range(readers)]

    def read(positions: list[int]) -> None:
        for position, kind in log.follow():
            with passed:
                positions.append(position)
                passed.notify_all()
            if kind == LAST:
                return

    def wait_until(condition: Callable[[], bool]) -> None:
        with passed:
            assert passed.wait_for(condition, PATIENCE), "the readers stand still"

    following = [pool.submit(read, positions) for positions in seen]
    wait_until(lambda: all(seen))
    with _hold(url) as waiting:
        held = pool.submit(log.write, HELD)
        waiting(1, held)
        free = pool.submit(log.write, FREE)
        waiting(2, free)
        overtaken = free.done()
        if overtaken:
            wait_until(lambda: all(free.result() in positions for positions in seen))
    held.result(PATIENCE)
    free.result(PATIENCE)
    log.write(LAST)
    for reader in following:
        reader.result(PATIENCE)
    pool.shutdown()
    return Seen(overtaken, seen, log.stored())


def _install_trigger(log: Tailed, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            f"CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$BEGIN PERFORM pg_advisory_xact_lock({_LOCK}); RETURN NULL; END$$"
        )
        connection.execute(
            SQL(
                "CREATE TRIGGER hold AFTER INSERT ON {} FOR EACH ROW "
                "WHEN (NEW.{} = 'Held') EXECUTE FUNCTION hold()"
            ).format(Identifier(*log.table), Identifier(log.type_column))
        )


@contextmanager
def _hold(url: str) -> Iterator[Callable[[int, Future[int]], None]]:
    """Hold the trigger's lock; gives a wait for n sessions to wait for locks, or for an end."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SQL("SELECT pg_advisory_lock({})").format(_LOCK))

        def waiting(count: int, writer: Future[int]) -> None:
            query = (
                "SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_stat_activity USING (pid) "
                "WHERE NOT granted AND datname = current_database()"
            )
            while not writer.done():
                row = connection.execute(query).fetchone()
                if row and row[0] >= count:
                    return

        yield waiting
