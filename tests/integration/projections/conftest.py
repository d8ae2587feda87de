"""A bot's directory with a log and read models, for processes that find it by its path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.projections import Views
from tests.unit.projections.histories import TestLog


@pytest.fixture
def history(tmp_path: Path) -> Iterator[TestLog]:
    (tmp_path / "bot").mkdir()
    log = TestLog(tmp_path / "bot" / "log.db")
    yield log
    log.close()


@pytest.fixture
def views(history: TestLog) -> Iterator[Views]:
    views = Views(history.path.with_name("views.db"))
    yield views
    views.close()
