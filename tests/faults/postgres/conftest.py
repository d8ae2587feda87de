"""A log on PostgreSQL, a network before it, and settings that do not wait for long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.postgres.stage import Stage
from tests.postgres import PostgresServer


@pytest.fixture(scope="module")
def server(postgres_home: None) -> Iterator[PostgresServer]:
    """A server for the tests of one file: whoever breaks it for good takes `own_postgres`."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def stage(server: PostgresServer) -> Iterator[Stage]:
    """A log of its own on that server, reached through a network of its own."""
    with Stage(server) as stage:
        yield stage
