"""A log and its views, in a directory of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.projections import Views
from tests.unit.projections.histories import TestLog


@pytest.fixture
def history(tmp_path: Path) -> Iterator[TestLog]:
    log = TestLog(tmp_path / "log.db")
    yield log
    log.close()


@pytest.fixture
def views(tmp_path: Path) -> Iterator[Views]:
    views = Views(tmp_path / "views.db")
    yield views
    views.close()
