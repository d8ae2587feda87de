"""News of a log on PostgreSQL: NOTIFY after a commit, LISTEN in every process that waits for one.

A notice is only a hint, and may be lost with its connection: whoever waits looks by itself now and
then. It is sent outside the append's transaction, because a transaction that notifies takes a lock
of the whole server when it commits, and at most every 10 ms.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
import weakref
from typing import Final

import psycopg

from eventstore.errors import LogUnavailable
from eventstore.postgres_connections import SQL, Server
from eventstore.postgres_patience import PatientConnection
from eventstore.types import Position

_logger = logging.getLogger(__name__)
_COALESCE_SECONDS: Final = 0.01
_PAUSE_SECONDS: Final = 0.25
"""between attempts to reach a server that is down"""


def channel(schema: str) -> str:
    """Return the channel of a schema's log. Names of schemas leave room for the prefix."""
    return f"hilo_{schema}"


class Notifier:
    """Tells other processes how far the log goes. Starts its thread when there is news first."""

    def __init__(self, server: Server) -> None:
        """Connect when there is something to tell, not before."""
        self._server = server
        self._last = Position(0)
        self._news = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def tell(self, position: Position) -> None:
        """Pass on that the log goes up to a position. Returns at once; one thread calls it."""
        self._last = position
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="hilo-notifier", daemon=True)
            self._thread.start()
        self._news.set()

    def close(self) -> None:
        """Stop, when what was told has been passed on. Idempotent."""
        self._closing.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        connection: PatientConnection | None = None
        told = Position(0)
        while True:
            self._news.wait()
            self._news.clear()
            closing = self._closing.is_set()
            if self._last != told:
                connection, told = self._pass_on(connection, told)
            if closing:
                break
            self._closing.wait(_COALESCE_SECONDS if connection else _PAUSE_SECONDS)
        if connection is not None:
            connection.close()

    def _pass_on(
        self, connection: PatientConnection | None, told: Position
    ) -> tuple[PatientConnection | None, Position]:
        last = self._last
        try:
            connection = connection or self._server.connect()
            connection.execute(SQL["notify"], (channel(self._server.schema), str(last)))
        except psycopg.Error as error:
            _logger.debug("a notice was not sent: %s", error)
            if connection is not None:
                connection.close()
            return None, told
        return connection, last


class NoticeWatch:
    """Waits for news of one log. One thread waits; any thread may wake it."""

    def __init__(self, listener: Listener, fallback: float) -> None:
        """Look at least every `fallback` seconds, whoever may have been told nothing."""
        self._listener = listener
        self._fallback = fallback
        self._looked = float("-inf")
        self._news = threading.Event()

    def wait(self, timeout: float) -> bool:
        """Return True when there may be news since the last time, False after `timeout` seconds.

        Raises `LogUnavailable` if the log is closed.
        """
        self._listener.check_open()
        due = self._looked + self._fallback
        left = min(timeout, due - time.monotonic())
        if not self._news.wait(max(left, 0)) and time.monotonic() < due:
            return False
        self._news.clear()
        self._looked = time.monotonic()
        return True

    def wake(self) -> None:
        """End the wait, or the next one."""
        self._news.set()


class Listener:
    """Wakes the watches of one process. Starts its thread with the first of them."""

    def __init__(self, server: Server) -> None:
        """Connect when somebody watches, not before."""
        self._server = server
        self._watches: weakref.WeakSet[NoticeWatch] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._end, self._other_end = socket.socketpair()

    def watch(self) -> NoticeWatch:
        """Return a new watch, which is woken as long as somebody holds it."""
        watch = NoticeWatch(self, self._server.settings.fallback_seconds)
        with self._lock:
            self.check_open()
            self._watches.add(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hilo-listener", daemon=True)
                self._thread.start()
        return watch

    def check_open(self) -> None:
        """Raise `LogUnavailable` if the log is closed."""
        if self._closed:
            msg = f"the log in schema {self._server.schema} is closed"
            raise LogUnavailable(msg)

    def close(self) -> None:
        """Stop, and end every wait. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._other_end.close()
        if self._thread is not None:
            self._thread.join()
        self._end.close()
        self._wake_all()

    def _run(self) -> None:
        while not self._closed:
            try:
                with self._server.connect() as connection:
                    connection.execute(f'LISTEN "{channel(self._server.schema)}"'.encode())
                    self._wake_all()  # for what came while nobody listened
                    self._listen(connection)
            except psycopg.Error as error:
                _logger.debug("notices cannot be heard: %s", error)
                _readable(self._end.fileno(), timeout=_PAUSE_SECONDS)

    def _listen(self, connection: PatientConnection) -> None:
        while not self._closed:
            end = self._end.fileno()
            if end in _readable(connection.fileno(), end):
                return
            if list(connection.notifies(timeout=0)):
                self._wake_all()

    def _wake_all(self) -> None:
        with self._lock:
            watches = list(self._watches)
        for watch in watches:
            watch.wake()


def _readable(*files: int, timeout: float | None = None) -> set[int]:
    """Return which files can be read. `select.select` refuses the numbers of a busy server."""
    waiting = select.poll()
    for file in files:
        waiting.register(file, select.POLLIN)
    return {file for file, _ in waiting.poll(None if timeout is None else timeout * 1000)}
