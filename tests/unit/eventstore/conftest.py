"""Keyrings; every test that asks for one, or for a `place`, runs once for each of their stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eventstore.keyring import KeyEncryptionKey, Keyring
from tests.unit.eventstore.key_stores import Place, PostgresPlace, SqlitePlace
from tests.unit.eventstore.keyrings import FakeClock


@pytest.fixture(params=["postgres", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where a keyring of its own is kept."""
    if request.param == "sqlite":
        return SqlitePlace(tmp_path / "keys.db")
    return PostgresPlace(request.getfixturevalue("postgres_url"))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def tombstones() -> set[str]:
    return set()


@pytest.fixture
def kek(tmp_path: Path) -> KeyEncryptionKey:
    return KeyEncryptionKey.from_file(tmp_path / "kek")


@pytest.fixture
def ticks() -> FakeClock:
    """A monotonic clock."""
    return FakeClock()


@pytest.fixture
def keyring(
    place: Place, kek: KeyEncryptionKey, clock: FakeClock, ticks: FakeClock, tombstones: set[str]
) -> Iterator[Keyring]:
    keyring = Keyring(
        place.open(), kek, clock=clock, is_forgotten=tombstones.__contains__, monotonic=ticks
    )
    yield keyring
    keyring.close()


@pytest.fixture
def another(
    place: Place, keyring: Keyring, kek: KeyEncryptionKey, clock: FakeClock
) -> Iterator[Keyring]:
    """The same keyring, as another process opens it."""
    another = Keyring(place.open(), kek, clock=clock)
    yield another
    another.close()
