"""Every test that asks for a `place` runs once for each store of a keyring."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.eventstore.key_stores import Place, PostgresPlace, SqlitePlace


@pytest.fixture(params=["postgres", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where a keyring of its own is kept."""
    if request.param == "sqlite":
        return SqlitePlace(tmp_path / "keys.db")
    return PostgresPlace(request.getfixturevalue("postgres_url"))
