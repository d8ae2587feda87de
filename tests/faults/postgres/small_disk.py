"""A PostgreSQL whose databases are on a disk of a few megabytes, that really fills up.

The disk is a tmpfs in a mount namespace of the server's own: Linux lets any user make one, where
its administrator does not forbid user namespaces (some containers do: `possible` tells).
"""

from __future__ import annotations

import functools
import secrets

import psycopg
import pytest
from psycopg.sql import SQL, Literal

from tests.postgres import DURABLE, PostgresServer, with_database
from tests.postgres_home import home

_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
_UNPRIVILEGED = "unshare --user --map-user=65534"


@functools.cache
def possible() -> bool:
    """Tell whether this machine lets an ordinary user mount a tmpfs for itself."""
    script = f"mount -t tmpfs none {home().directory} && {_UNPRIVILEGED} true"
    try:
        home().run(*_NAMESPACE, "sh", "-c", script)
    except (AssertionError, FileNotFoundError):
        return False
    return True


class SmallDisk(PostgresServer):
    """A server with one database on a small disk; the write-ahead log has room elsewhere."""

    def __init__(self, megabytes: int = 20) -> None:
        mount = home().make_directory(f"small-disk-{secrets.token_hex(4)}")
        script = (
            f'mount -t tmpfs -o size={megabytes}m none {mount} && exec {_UNPRIVILEGED} "$0" "$@"'
        )
        super().__init__(DURABLE, inside=(*_NAMESPACE, "sh", "-c", script))
        self._ballast = mount / "ballast"
        self.execute(SQL("CREATE TABLESPACE small LOCATION {}").format(Literal(str(mount))))
        self.execute(SQL("CREATE DATABASE small TABLESPACE small"))
        self.small_url = with_database(self.socket_url, "small")

    def fill(self) -> None:
        """Leave no room at all."""
        with pytest.raises(psycopg.errors.DiskFull):
            self._write_ballast("repeat('x', 1000) FROM generate_series(1, 1000000)")

    def make_room(self) -> None:
        """Give the room back."""
        self._write_ballast("1")

    def _write_ballast(self, what: str) -> None:
        self.execute(SQL("COPY (SELECT {}) TO {}").format(SQL(what), Literal(str(self._ballast))))
