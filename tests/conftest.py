"""What every test gets: no way out to the real OpenAI or WhatsApp, and a PostgreSQL if it asks.

The environment is cleaned when this file is imported, before any fixture runs, so that the
processes tests start inherit the clean one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.postgres import DURABLE, Databases, PostgresServer
from tests.postgres_home import close_home

REAL_WORLD = ("HILO_", "OPENAI_", "WHAPI_", "DATABASE_URL")
OTHER_POSTGRES = "HILO_TEST_POSTGRES_URL"

for name in [name for name in os.environ if name.startswith(REAL_WORLD)]:
    if name != OTHER_POSTGRES:
        del os.environ[name]

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell starts what runs in its background like that: Ctrl-C must reach what tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A shared CI core makes any single example slow; pytest's own time-out guards against hangs.
settings.register_profile("hilo", deadline=None, print_blob=True)
settings.load_profile("hilo")


# -- PostgreSQL ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_home() -> Iterator[None]:
    """The directory that all servers of this process live in, gone at the end."""
    yield
    close_home()


@pytest.fixture(scope="session")
def postgres(postgres_home: None) -> Iterator[Databases]:
    """A PostgreSQL for databases of one's own; it flushes nothing, so it must not be killed."""
    url = os.environ.get(OTHER_POSTGRES)
    server = Databases(url) if url else PostgresServer()
    yield server
    server.close()


@pytest.fixture
def own_postgres(postgres_home: None) -> Iterator[PostgresServer]:
    """A durable PostgreSQL that the test may stop, kill and break."""
    server = PostgresServer(DURABLE)
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres: Databases) -> Iterator[str]:
    """The URL of a fresh, empty database."""
    url = postgres.database()
    yield url
    postgres.drop(url)
