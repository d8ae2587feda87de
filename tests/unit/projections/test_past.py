"""Read models as they were at a position."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.projections import MODELS, clients, content, past
from eventstore.errors import CutInsideAppend
from eventstore.types import Position
from tests.unit.projections.accounts import naive
from tests.unit.projections.histories import TestLog, received
from tests.unit.projections.lives import SCRIPTS, Script, World


@given(script=SCRIPTS, share=st.floats(0, 1))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_past_is_what_the_live_tables_held_then(
    tmp_path_factory: pytest.TempPathFactory, script: Script, share: float
) -> None:
    directory = tmp_path_factory.mktemp("past")
    history = TestLog(directory / "log.db")
    World(history).play(script)
    cuts = [Position(0), *_ends(history)]
    position = cuts[int(share * (len(cuts) - 1))]
    views = past.build_at(directory / "then.db", history.log, MODELS, position)
    assert content(views) == naive(history.log, position)
    assert {s.cursor.position for s in views.standings().values()} == {position}
    views.close()
    history.close()


def _ends(history: TestLog) -> list[Position]:
    """The last position of each append."""
    events = history.log.read(limit=1_000_000)
    return [
        event.position
        for event, following in zip_longest(events, events[1:])
        if following is None or event.append_id != following.append_id
    ]


def test_a_moment_inside_an_append_never_was(history: TestLog, tmp_path: Path) -> None:
    history.append("a", received(), received())
    with pytest.raises(CutInsideAppend):
        past.build_at(tmp_path / "then.db", history.log, MODELS, Position(1))


def test_the_queries_answer_from_the_past(history: TestLog, tmp_path: Path) -> None:
    before = history.chat("a")
    history.chat("bc")
    views = past.build_at(tmp_path / "then.db", history.log, MODELS, before)
    answer = clients.clients(views)
    assert (answer.position, [c.user for c in answer.clients]) == (before, ["a"])
    views.close()
