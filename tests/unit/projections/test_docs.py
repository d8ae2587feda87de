"""docs/read-models.md says what is there: every model, every column, and SQL that runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.projections import MODELS, Views, rebuild
from tests.unit.projections.histories import TestLog
from tests.unit.projections.lives import COMMANDS, World

PAGE = (Path(__file__).parents[3] / "docs" / "read-models.md").read_text("utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


def test_every_read_model_has_its_place() -> None:
    assert re.findall(r"^## `(\w+)`", PAGE, re.MULTILINE) == [model.name for model in MODELS]
    assert len(QUERIES) == len(MODELS)


@pytest.mark.parametrize("query", QUERIES)
def test_the_queries_run_and_find_something(query: str, history: TestLog, views: Views) -> None:
    script = [(who, n % len(COMMANDS), 2 * n + 1) for n in range(60) for who in "ab"]
    turn = [("c", command, 8) for command in (0, 1, 5, 6, 2, 3, 4, 3, 4)]
    World(history).play([*script, *turn])
    history.clean_up("c1", 0, 0)
    rebuild(views, history.log, MODELS)
    with views.read() as db:
        rows = db.execute(query).fetchall()
    assert rows or "threadTokenCount >=" in query


def test_every_column_is_told_of(views: Views, history: TestLog) -> None:
    rebuild(views, history.log, MODELS)
    words = set(re.findall(r"\w+", PAGE))
    for model in MODELS:
        for table in model.tables:
            with views.read() as db:
                found = db.execute(f'SELECT * FROM "{table}"').description
            missing = {column[0] for column in found} - words - {"cleaned_count", "state"}
            assert not missing - {"total_tokens_cleared", "execution_time"}, table
