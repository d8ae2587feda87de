"""Every test of this folder runs once for each store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eventstore.store import LogStore
from eventstore.writer import Writer
from tests.conformance.postgres_store import PostgresFactory
from tests.conformance.stores import FakeClock, SQLiteFactory, StoreFactory
from tests.postgres import Databases

FACTORIES: dict[str, Callable[[Path], StoreFactory]] = {
    "postgres": PostgresFactory,
    "sqlite": SQLiteFactory,
}


@pytest.fixture(scope="session", autouse=True)
def one_database(postgres: Databases) -> Iterator[None]:
    """The database that all logs on PostgreSQL of this session are in, a schema each."""
    database = PostgresFactory.database = postgres.database()
    yield
    postgres.drop(database)  # its own: `tests.faults.eventstore` has one, too


@pytest.fixture(params=sorted(FACTORIES))
def store_factory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreFactory]:
    """A log of its own for each test, and the way to open it."""
    factory = FACTORIES[request.param](tmp_path)
    yield factory
    factory.close()


@pytest.fixture
def clock() -> FakeClock:
    """The store's time, held by the test."""
    return FakeClock()


@pytest.fixture
def log(store_factory: StoreFactory, clock: FakeClock) -> LogStore:
    """The log, opened once, on a clock that stands still."""
    return store_factory.open(clock=clock)


@pytest.fixture
def writer(log: LogStore) -> Iterator[Writer]:
    """A writer before that log."""
    writer = Writer(log)
    yield writer
    writer.close()
