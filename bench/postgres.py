"""A PostgreSQL to measure on: the one that is named, or the wheel's, started for the run.

`HILO_BENCH_POSTGRES_URL` names a server and a user that may create databases. Otherwise the server
of the tests is used, which flushes like any other and has PostgreSQL's usual settings.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg

from app.demo.postgres_home import PostgresFailed
from bench.datasets import DataSet
from bench.measuring import PeerMissing
from eventstore.migrate import move
from eventstore.migrate_postgres import PostgresTarget
from eventstore.migrate_sqlite import SqliteSource

if TYPE_CHECKING:
    from tests.postgres import Databases

ROOT: Final = str(Path(__file__).parents[1])
SCHEMA: Final = "bot_default"
_USUAL: Final = {"shared_buffers": "128MB", "max_wal_size": "1GB"}


@contextmanager
def databases() -> Iterator[Databases]:
    """Lend a server on which databases can be made. Raises `PeerMissing`."""
    _find_tests()
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
    try:
        if url:
            psycopg.connect(url, connect_timeout=5).close()
        server = Databases(url) if url else PostgresServer({**DURABLE, **_USUAL})
    except (psycopg.Error, PostgresFailed, OSError) as error:
        msg = f"no PostgreSQL here: {str(error).strip() or type(error).__name__}"
        raise PeerMissing(msg) from error
    try:
        yield server
    finally:
        server.close()


def _find_tests() -> None:
    """Let this process import the tests: a console script does not look beside its packages."""
    if ROOT not in sys.path and (Path(ROOT) / "tests" / "postgres.py").exists():
        sys.path.append(ROOT)


def library_settings(url: str) -> dict[str, str]:
    """The settings that put the `eventsourcing` library on a database of `databases`."""
    from tests.postgres import library_settings as settings_of  # noqa: PLC0415 - as above

    return settings_of(url)


@contextmanager
def moved(server: Databases, data: DataSet) -> Iterator[str]:
    """A new database with the log of a data set in `SCHEMA`, dropped in the end; yield its URL.

    The keys stay where they are.
    """
    url = server.database()
    try:
        source = SqliteSource(data.directory / "log.db")
        target = PostgresTarget(url, SCHEMA, dead_seconds=0)
        with closing(source), closing(target):
            move(source, target, lambda _what, _done, _total: None, before_use=lambda: None)
        yield url
    finally:
        server.drop(url)
