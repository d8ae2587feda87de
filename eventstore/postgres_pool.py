"""The readers' connections to a log on PostgreSQL: a few, lent in turn.

A connection is made on the thread that asks for it, so that a server that is down is told at once:
a pool that connects in the background lets each reader wait for its time-out first.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from eventstore.postgres_connections import Server
from eventstore.postgres_lineage import Lineage
from eventstore.postgres_patience import PatientConnection


class Pool:
    """At most `pool_size` connections that only read; the one used last is used next."""

    def __init__(self, server: Server, lineage: Lineage) -> None:
        """Connect when asked, not before; `lineage` looks at every new connection."""
        self._server = server
        self._lineage = lineage
        self._places = _Places(server.settings.pool_size)
        self._lock = threading.Lock()
        self._idle: list[tuple[PatientConnection, float]] = []
        self._closed = False

    @contextmanager
    def connection(self) -> Iterator[PatientConnection]:
        """Lend a connection. Raises `psycopg.Error`; a broken one is not kept."""
        settings = self._server.settings
        if not self._places.take(settings.read_timeout):
            msg = f"all {settings.pool_size} connections are in use: raise the pool's size"
            raise psycopg.errors.TooManyConnections(msg)
        try:
            connection = self._take() or self._connect()
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            self._places.give_back()

    def drop_idle(self) -> None:
        """Close what nobody uses now: one broken connection is seldom alone."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def close(self) -> None:
        """Close every connection, those in use when they come back. Idempotent."""
        self._closed = True
        self.drop_idle()

    def _take(self) -> PatientConnection | None:
        if self._closed:
            msg = "the log is closed"
            raise psycopg.InterfaceError(msg)
        with self._lock:
            return self._idle.pop()[0] if self._idle else None

    def _connect(self) -> PatientConnection:
        connection = self._server.connect(read_only=True)
        try:
            self._lineage.check(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _give_back(self, connection: PatientConnection) -> None:
        now = time.monotonic()
        stale: list[PatientConnection] = []
        with self._lock:
            if connection.closed or self._closed:
                stale.append(connection)
            else:
                self._idle.append((connection, now))
            oldest = now - self._server.settings.idle_seconds
            while self._idle and self._idle[0][1] < oldest:
                stale.append(self._idle.pop(0)[0])
        for one in stale:
            one.close()


class _Places:
    """A semaphore that is fair: whoever waits longest is next, not whoever asks again first."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()

    def take(self, timeout: float) -> bool:
        """Return True when a place is the caller's, False after `timeout` seconds."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            turn = threading.Event()
            self._waiting.append(turn)
        if turn.wait(timeout):
            return True
        with self._lock:
            if turn.is_set():
                return True
            self._waiting.remove(turn)
        return False

    def give_back(self) -> None:
        """Hand the place to whoever waits, if anybody does."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1
