"""One connection to PostgreSQL that never hangs, and comes back by itself.

Every wait has an end: to connect, for a lock, for a statement (the server's time-outs), and for
an answer at all (ours: a network that swallows packets tells nobody). Nor do others wait for us: a
process that is stopped in the middle of a transaction loses it, and what it had locked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict

from eventstore.errors import LogUnavailable
from eventstore.postgres_patience import GRACE_SECONDS, PatientConnection, connect

_Row = tuple[Any, ...]


class Waits(msgspec.Struct, frozen=True):
    """How long, in seconds, to wait for a connection, for a lock and for one statement."""

    connect: float = 5.0
    lock: float = 10.0
    statement: float = 10.0
    """also the longest pause between two statements of a transaction"""


class Remark(msgspec.Struct, frozen=True):
    """What a server says beside its answer."""

    severity: str
    """`INFO`, `WARNING`, … in whatever language the rest is"""
    text: str
    detail: str


class ConnectionLost(LogUnavailable):
    """The connection broke under a statement: whether that was carried out is not known."""


class Link:
    """One session, made when it is first needed and again after it broke. One thread at a time."""

    def __init__(self, url: str, *, waits: Waits, what: str) -> None:
        """Take a connection string. `what` names, in errors, what cannot be used."""
        self._waits = waits
        self._what = what
        self._connection: PatientConnection | None = None
        self._closed = False
        options = (
            f"-c lock_timeout={_ms(waits.lock)} -c statement_timeout={_ms(waits.statement)} "
            f"-c idle_in_transaction_session_timeout={_ms(waits.statement)} "
            "-c synchronous_commit=on -c client_min_messages=warning"
        )
        given = conninfo_to_dict(url).get("options") or ""
        self._url = url
        self._options = f"{given} {options}".strip()

    def run(self, statement: str, values: Sequence[object] = ()) -> list[_Row]:
        """Run one statement (or several without values) and return the rows of the last.

        Raises `ConnectionLost` if the connection was found broken, `psycopg.Error` for what the
        server itself refuses (the caller knows what that means), `LogUnavailable` if there is no
        connection to be had.
        """
        connection = self._connected()
        with self._watched(connection):
            cursor = connection.execute(statement, tuple(values) or None)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def copy(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Send rows to a COPY … FROM STDIN. Raises as `run`."""
        connection = self._connected()
        with (
            self._watched(connection),
            connection.cursor() as cursor,
            cursor.copy(statement) as into,
        ):
            for row in rows:
                into.write_row(row)

    @contextmanager
    def _watched(self, connection: PatientConnection) -> Iterator[None]:
        """Drop a connection that broke; see `run`."""
        try:
            yield
        except psycopg.Error as error:
            waiting = connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE
            standby = isinstance(error, psycopg.errors.ReadOnlySqlTransaction)
            if connection.closed or waiting or standby:
                self.drop()  # standby: the next connection may find the server that leads now
                msg = f"{self._what} cannot be used now: {_said(error)}"
                raise ConnectionLost(msg) from error
            raise
        except BaseException:  # Ctrl-C in the middle: the session is in nobody knows what state
            self.drop()
            raise

    def run_slowly(self, statement: str, seconds: float) -> list[Remark]:
        """Run one statement that may take long; return what the server remarked. As `run`."""
        connection = self._connected()
        remarks: list[Remark] = []

        def note(said: psycopg.errors.Diagnostic) -> None:  # it is gone when the handler returns
            severity = said.severity_nonlocalized or ""
            remarks.append(Remark(severity, said.message_primary or "", said.message_detail or ""))

        connection.add_notice_handler(note)
        connection.patience = seconds + GRACE_SECONDS
        try:
            self.run(f"SET statement_timeout = {_ms(seconds)}")
            self.run(statement)
            self.run("RESET statement_timeout")
        finally:
            connection.patience = self._patience
            connection.remove_notice_handler(note)
        return remarks

    @property
    def _patience(self) -> float:
        return max(self._waits.statement, self._waits.lock) + GRACE_SECONDS

    def _connected(self) -> PatientConnection:
        if self._closed:
            msg = f"{self._what} is closed"
            raise LogUnavailable(msg)
        if self._connection is None or self._connection.closed:
            try:
                self._connection = connect(
                    self._url, seconds=self._waits.connect, options=self._options
                )
            except psycopg.Error as error:
                msg = f"{self._what} cannot be reached: {_said(error)}"
                raise LogUnavailable(msg) from error
            self._connection.patience = self._patience
        return self._connection

    @property
    def in_transaction(self) -> bool:
        """Tell whether a transaction is open, or has failed and waits for its ROLLBACK."""
        if self._connection is None or self._connection.closed:
            return False
        return self._connection.pgconn.transaction_status != psycopg.pq.TransactionStatus.IDLE

    def drop(self) -> None:
        """Close the session; the next statement makes another. The server undoes what was open."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def close(self) -> None:
        """Close for good. Idempotent."""
        self._closed = True
        self.drop()


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _said(error: psycopg.Error) -> str:
    """Return what a server or libpq said, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
