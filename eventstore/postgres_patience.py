"""Sessions with PostgreSQL that are given up when nobody answers any more.

The server's own time-outs end what it works on for too long. They say nothing of a server that is
frozen, or of a network that swallows packets: these ends are ours.
"""

from __future__ import annotations

import select
from typing import Any, Final, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import ConnStatus

RV = TypeVar("RV")

GRACE_SECONDS: Final = 2.0
"""After the server's own time-out, which says more than silence, a session is given up."""

_UNHEARD_MS: Final = 10_000
"""After which a connection is gone on which the server's machine acknowledges nothing."""


class PatientConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that is given up if the server says nothing for `patience` seconds."""

    patience: float = 30.0

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Do what the library's does, within the connection's patience."""
        if timeout is not None:  # the caller knows better, and what to do when it is over
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.patience)
        except psycopg.errors._WaitTimeout as error:  # noqa: SLF001 - what its docs say is raised
            self.pgconn.finish()
            msg = f"the server has said nothing for {self.patience:g} s"
            raise psycopg.OperationalError(msg) from error

    def has_ended(self) -> bool:
        """Tell whether the server has ended this idle connection. Does not wait.

        What is then asked on another connection was certainly never sent on this one.
        """
        said = select.poll()
        try:
            said.register(self.fileno(), select.POLLIN)
            while said.poll(0):  # its last words, then the end
                self.pgconn.consume_input()
        except psycopg.OperationalError:
            return True
        return self.pgconn.status != ConnStatus.OK


def connect(url: str, *, seconds: float, options: str | None = None) -> PatientConnection:
    """Open a session that commits each statement, trying each host of `url` for so long.

    `options` are the server's settings, in place of those of `url`. Raises `psycopg.Error`.
    """
    return PatientConnection.connect(
        url,
        autocommit=True,
        application_name=conninfo_to_dict(url).get("application_name") or "hilo",
        connect_timeout=max(2, round(seconds)),  # libpq's least is 2 s
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=_UNHEARD_MS,
        options=options,
    )
