"""What operators do to read models: pause, resume, skip; and what nobody can make them do."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from app.projections import (
    MODELS,
    THREAD_MAP,
    TOKEN_TOTALS,
    NotBuilt,
    NotThatState,
    Skip,
    Views,
    content,
    operating,
    rebuild,
)
from app.projections.follower import Follower
from app.projections.rebuild import beside
from app.projections.usage import USAGE
from eventstore.types import Position
from tests.unit.projections.accounts import naive
from tests.unit.projections.histories import CODEC, TestLog, received, started, tokens
from tests.unit.projections.test_engine import BROKEN, build, follow

ENOUGH = 30.0


class Ledger:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.skips: list[Skip] = []

    def record(self, skip: Skip) -> None:
        self.skips.append(skip)

    def recorded(self) -> Sequence[Skip]:
        return self.skips


@pytest.fixture
def poisoned(history: TestLog, views: Views) -> Position:
    """A log whose event at this position no reader of tokens can take."""
    history.append("a", started("t"), tokens("t", 5))
    bad = history.append_raw("a", CODEC.encode(tokens("t", 7)), BROKEN)
    history.append("a", tokens("t", 9))
    history.chat("b")
    build(views, history)
    follow(views, history)
    return bad


def test_a_paused_model_stands_still_and_can_be_read_while_the_others_follow(
    history: TestLog, views: Views
) -> None:
    history.chat("a")
    build(views, history)
    follow(views, history)
    paused_at = history.log.head().position
    operating.pause(views, THREAD_MAP, by="ana", why="looks odd")
    history.chat("b")
    follow(views, history)
    assert content(views)["thread_map"] == naive(history.log, paused_at)["thread_map"]
    assert content(views)["token_totals"] == naive(history.log)["token_totals"]
    assert views.standings()["thread_map"].error == "paused by ana: looks odd"
    operating.resume(views, THREAD_MAP)
    follow(views, history)
    assert content(views) == naive(history.log)


def test_a_pause_outlives_a_rebuild_and_a_follower_that_starts(
    history: TestLog, views: Views
) -> None:
    history.chat("a")
    rebuild(views, history.log, MODELS)
    operating.pause(views, THREAD_MAP, by="ana")
    history.chat("b")
    rebuild(views, history.log, MODELS)
    assert content(views) == naive(history.log)  # asked for, so done
    before = history.log.head().position
    follower = Follower(history.log, views, MODELS)
    follower.start()
    try:
        after = history.chat("c")
        assert follower.progress.wait_for(after, ENOUGH, model="usage")
        assert not follower.progress.wait_for(after, ENOUGH, model="thread_map")  # at once
        assert follower.progress.numbers()["read_model_stopped_thread_map"] == 1
        assert follower.progress.numbers()["read_model_stopped_usage"] == 0
    finally:
        follower.stop()
    standing = views.standings()["thread_map"]
    assert (standing.state, standing.cursor.position) == ("paused", before)


def test_a_parked_model_goes_on_past_the_event_that_an_operator_skips(
    history: TestLog, views: Views, poisoned: Position
) -> None:
    ledger = Ledger()
    operating.skip(
        views, history.log, TOKEN_TOTALS, ledger, position=poisoned, by="ana", why="by hand"
    )
    follow(views, history)
    standings = views.standings()
    assert (standings["token_totals"].state, standings["usage"].state) == ("live", "parked")
    with views.read() as db:
        totals = db.execute("SELECT total FROM token_totals WHERE user = 'a'").fetchone()
    assert totals == (5 + 7 + 9,)
    (skip,) = ledger.skips
    assert (skip.model, skip.position, skip.by, skip.why) == (
        "token_totals",
        poisoned,
        "ana",
        "by hand",
    )


def test_what_is_skipped_is_skipped_by_rebuilds_too_and_by_views_made_anew_from_the_ledger(
    history: TestLog, views: Views, poisoned: Position
) -> None:
    ledger = Ledger()
    for model in (TOKEN_TOTALS, USAGE):
        operating.skip(views, history.log, model, ledger, position=poisoned, by="a", why="w")
    follow(views, history)
    before = content(views)
    assert all(outcome.switched for outcome in rebuild(views, history.log, MODELS))
    assert {s.state for s in views.standings().values()} == {"live"}
    assert content(views) == before
    views.close()
    views.path.unlink()
    anew = Views(views.path)
    follower = Follower(history.log, anew, MODELS, ledger=ledger)
    follower.start()
    try:
        assert follower.progress.wait_for(history.log.head().position, ENOUGH)
    finally:
        follower.stop()
    assert content(anew) == before
    anew.close()


def test_another_event_at_the_same_position_of_another_log_is_not_skipped(
    history: TestLog, views: Views, poisoned: Position
) -> None:
    ledger = Ledger()
    operating.skip(views, history.log, TOKEN_TOTALS, ledger, position=poisoned, by="a", why="w")
    other = TestLog(history.path.with_name("other.db"))
    for _ in range(poisoned):
        other.append("a", tokens("t", 1))
    rebuild(views, other.log, [TOKEN_TOTALS])
    assert content(views)["token_totals"] == naive(other.log)["token_totals"]
    other.close()


def test_only_an_event_of_the_append_that_stopped_a_model_can_be_skipped(
    history: TestLog, views: Views, poisoned: Position
) -> None:
    def skip(position: int, model: object = TOKEN_TOTALS) -> None:
        operating.skip(
            views,
            history.log,
            model,  # type: ignore[arg-type]
            Ledger(),
            position=Position(position),
            by="a",
            why="w",
        )

    with pytest.raises(NotThatState, match="it has stopped before the append at 3"):
        skip(poisoned + 1)
    with pytest.raises(NotThatState, match="no event has stopped it"):
        skip(poisoned, THREAD_MAP)
    assert views.skips() == []


def test_what_cannot_be_paused_or_resumed_says_why(
    history: TestLog, views: Views, poisoned: Position
) -> None:
    with pytest.raises(NotThatState, match="is parked, cannot pause: it has stopped by itself"):
        operating.pause(views, TOKEN_TOTALS, by="a")
    with pytest.raises(NotThatState, match="is live, cannot resume: nothing has stopped it"):
        operating.resume(views, THREAD_MAP)
    with pytest.raises(NotThatState, match="is live, cannot resume: nothing has stopped it"):
        operating.refuse_to_resume(views, THREAD_MAP)
    empty = Views(beside(views.path))
    with pytest.raises(NotBuilt):
        operating.pause(empty, THREAD_MAP, by="a")
    empty.close()


def test_a_parked_model_that_is_resumed_tries_again_and_parks_again(
    history: TestLog, views: Views, poisoned: Position
) -> None:
    operating.resume(views, TOKEN_TOTALS)
    assert views.standings()["token_totals"].state == "live"
    follow(views, history)
    assert views.standings()["token_totals"].state == "parked"


def test_the_lag_is_a_number(history: TestLog, views: Views) -> None:
    history.chat("a")
    rebuild(views, history.log, MODELS)
    follower = Follower(history.log, views, MODELS)
    follower.start()
    try:
        assert follower.progress.wait_for(history.append("a", received()), ENOUGH)
        numbers = follower.progress.numbers()
    finally:
        follower.stop()
    assert {numbers[f"read_model_lag_events_{model.name}"] for model in MODELS} == {0.0}
    assert 0 < numbers["read_models_visible_seconds"] < ENOUGH
