"""Connections to a log on PostgreSQL: durable, and bounded in time.

COMMIT returns when the events are on the disk (`synchronous_commit` is never below `on`). Nothing
waits for ever: besides the server's own time-outs, a connection that does not answer is given up.
"""

from __future__ import annotations

import threading
import time
from typing import Final

import msgspec
import psycopg
from psycopg import sql as compose

from eventstore import sql
from eventstore.postgres_arrays import register_arrays
from eventstore.postgres_patience import GRACE_SECONDS, PatientConnection, connect
from eventstore.types import Micros

SQL: Final = sql.load("postgres.sql")

_ADVICE: Final = {
    "25006": "it is read-only, as a standby is: point the URL at the primary, or list all hosts "
    "in it and add target_session_attrs=read-write",
    "28": "it refuses this user: check the user and password in the URL",
    "3D000": "there is no such database: create it, or correct the URL",
    "42501": "this role may not do that: run `hilo store prepare` as the schema's owner",
    "53100": "its disk is full: make room",
    "53300": "it has no connection left: raise max_connections, or lower the pool sizes",
    "55P03": "a lock was not given in time: another session holds it",
    "57014": "a statement took too long: the server is overloaded",
    "57P": "it is starting or shutting down: wait",
    "08": "it cannot be reached: check that it runs, and the host and port in the URL",
}
_REFUSALS: Final = {
    "too many clients": "53300",
    "too many connections": "53300",
    "remaining connection slots": "53300",
    "starting up": "57P03",
    "shutting down": "57P03",
    "authentication failed": "28P01",
    'FATAL:  role "': "28000",
    'FATAL:  database "': "3D000",
    "no pg_hba.conf entry": "28000",
}
"""What a server says that accepts no connection, in English."""
_ENDED: Final = ("08", "57P", "25P03", "25P04")
"""SQLSTATEs after which the connection is gone: ended by an administrator or a time-out."""

_OFF: Final = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin")
"""A plan made while the log was small is kept by its session, and would go on to read all of it."""


class PostgresSettings(msgspec.Struct, frozen=True):
    """How patiently, and over how many connections, a log is used. Times are in seconds."""

    pool_size: int = 4
    """connections of readers; the writer, the notifier and the listener have one each besides"""
    connect_timeout: float = 5.0
    lock_timeout: float = 5.0
    statement_timeout: float = 10.0
    """after which the server gives a statement up; we give up a silent server 2 s later"""
    read_timeout: float = 60.0
    """for one statement of a reader"""
    idle_seconds: float = 300.0
    """after which a reader's connection is replaced"""
    settle_seconds: float = 5.0
    """for which a COMMIT of unknown outcome is asked about, until it is said to be unknown"""
    fallback_seconds: float = 1.0
    """how often a subscriber looks though nobody told it anything"""


class Server:
    """Where a log is, and how to connect to it."""

    def __init__(self, url: str, schema: str, settings: PostgresSettings) -> None:
        """Take the address; nothing is connected yet."""
        self.url = url
        self.schema = schema
        self.settings = settings

    def connect(
        self, *, read_only: bool = False, patience: float | None = None
    ) -> PatientConnection:
        """Open a connection that keeps the log's rules. Raises `psycopg.Error`."""
        settings = self.settings
        statement = settings.read_timeout if read_only else settings.statement_timeout
        connection = connect(self.url, seconds=settings.connect_timeout)
        try:
            connection.patience = patience or max(statement, settings.lock_timeout) + GRACE_SECONDS
            register_arrays(connection)
            connection.prepare_threshold = 2
            wanted: dict[str, compose.Composable] = {
                "search_path": compose.Identifier(self.schema),
                "statement_timeout": compose.Literal(f"{statement * 1000:.0f}"),
                "lock_timeout": compose.Literal(f"{settings.lock_timeout * 1000:.0f}"),
                "idle_in_transaction_session_timeout": compose.Literal(f"{statement * 1000:.0f}"),
            }
            if read_only:
                wanted["default_transaction_read_only"] = compose.Literal("on")
                wanted |= dict.fromkeys(_OFF, compose.Literal("off"))
            encoding, synchronous = connection.execute(SQL["settings"]).fetchone() or ("", "")
            if encoding != "UTF8":
                msg = f"its encoding is {encoding}: a log needs a database in UTF8"
                raise psycopg.NotSupportedError(msg)  # noqa: TRY301 - closed below
            if synchronous in {"off", "local", "remote_write"}:  # remote_apply is more than on
                wanted["synchronous_commit"] = compose.Literal("on")
            connection.execute(
                compose.SQL("; ").join(
                    compose.SQL("SET {} TO {}").format(compose.Identifier(name), value)
                    for name, value in wanted.items()
                )
            )
        except BaseException:
            connection.close()
            raise
        return connection

    def why(self, error: Exception) -> str:
        """Say what is wrong with the server, and what to do."""
        return f"PostgreSQL, schema {self.schema}: {_first_line(error)}{advice(error)}"


def advice(error: Exception) -> str:
    """Return what an error of PostgreSQL asks its operator to do, if we know."""
    state = _state(error)
    for length in (5, 3, 2):
        found = _ADVICE.get(state[:length])
        if found:
            return f" ({found})"
    return ""


def is_lost(error: Exception) -> bool:
    """Tell whether the connection failed, rather than a statement on it."""
    return isinstance(error, psycopg.OperationalError) and (
        error.sqlstate is None or error.sqlstate.startswith(_ENDED)
    )


def _state(error: Exception) -> str:
    """Return the error's SQLSTATE, which libpq does not tell where no connection came about."""
    state: str | None = getattr(error, "sqlstate", None)
    if state or not is_lost(error):
        return state or ""
    return next((code for text, code in _REFUSALS.items() if text in str(error)), "08")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class Estimate:
    """The server's clock, as far as it can be known here; never waits and never goes back."""

    def __init__(self) -> None:
        """Know nothing yet: `observe` comes first."""
        self._offset: int | None = None
        self._last = 0
        self._lock = threading.Lock()

    def observe(self, told: int, asked: int, answered: int) -> None:
        """Take note that the server told its time between two instants of `monotonic_micros`.

        The first time the middle counts. Later the estimate moves only as far as it must to be
        possible: an answer that waited long (for a lock, say) does not spoil a good estimate.
        """
        low, high = told - answered, told - asked
        with self._lock:
            if self._offset is None:
                self._offset = (low + high) // 2
            self._offset = min(max(self._offset, low), high)

    def __call__(self) -> Micros:
        """Return the server's time."""
        with self._lock:
            self._last = max(self._last, monotonic_micros() + (self._offset or 0))
            return Micros(self._last)


def monotonic_micros() -> int:
    """Return µs that never go back; only differences mean something."""
    return time.monotonic_ns() // 1000
