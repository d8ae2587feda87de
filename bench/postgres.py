"""A PostgreSQL to measure on: the one that is named, or the wheel's, started for the run.

`HILO_BENCH_POSTGRES_URL` names a server and a user that may create databases. Otherwise the server
of the tests is used, which flushes like any other and has PostgreSQL's usual settings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.measuring import PeerMissing

if TYPE_CHECKING:
    from tests.postgres import Databases

_USUAL = {"shared_buffers": "128MB", "max_wal_size": "1GB"}


@contextmanager
def databases() -> Iterator[Databases]:
    """Lend a server on which databases can be made. Raises `PeerMissing`."""
    try:
        from tests.postgres import (  # noqa: PLC0415 - not there where Hilo is only used
            DURABLE,
            Databases,
            PostgresServer,
        )
    except ImportError as error:
        msg = f"no PostgreSQL here: {error.name} is missing (make setup installs it)"
        raise PeerMissing(msg) from None
    url = os.environ.get("HILO_BENCH_POSTGRES_URL")
    server = Databases(url) if url else PostgresServer({**DURABLE, **_USUAL})
    try:
        yield server
    finally:
        server.close()
