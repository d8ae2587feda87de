"""The latency of turns: what is timed, and that it is what the aggregate did."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from app.aggregates import events as e
from app.aggregates.user_state import BLANK, UserState, evolve
from app.projections import MODELS, Span, Views, analytics, rebuild
from app.projections.open_turns import TURN_EVENTS, OpenTurn, Turn
from eventstore.codec import Event
from tests.unit.aggregates.scenario import message, part_sent, run_completed, run_started
from tests.unit.projections.histories import CODEC, TestLog
from tests.unit.projections.lives import SCRIPTS, Script, World

SECOND = 1_000_000
Timed = tuple[float, Event]


def turns(*steps: Timed) -> list[Turn]:
    """The turns that end when these events happen, so many seconds after the start."""
    now = OpenTurn()
    ended = [now.take(round(seconds * SECOND), event) for seconds, event in steps]
    return [turn for turn in ended if turn is not None]


def failed(run: str) -> e.RunFailed:
    return e.RunFailed(run=run, code="timeout", retry_at=1)


def test_a_turn_is_timed_from_its_first_message_to_its_last_part() -> None:
    (turn,) = turns(
        (0, message(1)),
        (2, message(2)),
        (7, run_started("r", 2)),
        (7.5, e.RunSubmitted(run="r", response="x")),
        (9, run_completed("r", parts=2)),
        (10, part_sent("r", 0)),
        (11, part_sent("r", 1)),
    )
    assert turn == Turn(
        outcome="sent",
        first_at=0,
        gathered_at=2 * SECOND,
        last_at=2 * SECOND,
        messages=2,
        runs=1,
        claimed_at=7 * SECOND,
        started_at=7 * SECOND,
        submitted_at=round(7.5 * SECOND),
        completed_at=9 * SECOND,
        ended_at=11 * SECOND,
    )


def test_what_comes_while_the_model_thinks_is_another_turn() -> None:
    first, second = turns(
        (0, message(1)),
        (1, run_started("r", 1)),
        (2, message(2)),
        (3, run_completed("r")),
        (4, part_sent("r")),
        (5, run_started("s", 2)),
        (6, run_completed("s")),
        (7, part_sent("s")),
    )
    assert (first.messages, first.ended_at) == (1, 4 * SECOND)
    assert (second.first_at, second.messages) == (2 * SECOND, 1)


def test_a_run_that_fails_is_retried_within_its_turn() -> None:
    (turn,) = turns(
        (0, message(1)),
        (1, run_started("r", 1)),
        (2, failed("r")),
        (3, message(2)),
        (4, run_started("s", 2, attempt=2)),
        (5, run_completed("s")),
        (6, part_sent("s")),
    )
    assert (turn.runs, turn.messages) == (2, 2)
    assert (turn.claimed_at, turn.started_at) == (SECOND, 4 * SECOND)
    assert (turn.gathered_at, turn.last_at) == (0, 3 * SECOND)


def test_a_message_that_was_taken_back_begins_no_turn() -> None:
    (turn,) = turns(
        (0, message(1)),
        (1, e.MessageDeleted(ref=message(1).ref)),
        (86_400, message(2)),
        (86_401, run_started("r", 3)),
        (86_402, run_completed("r", parts=0)),
    )
    assert (turn.outcome, turn.first_at, turn.messages) == ("silent", 86_400 * SECOND, 1)


def test_a_part_that_nobody_can_vouch_for_is_said() -> None:
    (turn,) = turns(
        (0, message(1)),
        (1, run_started("r", 1)),
        (2, run_completed("r", parts=2)),
        (3, part_sent("r", 0)),
        (4, e.DeliveryUncertain(run="r", part=1)),
    )
    assert (turn.outcome, turn.ended_at) == ("part", 4 * SECOND)


@given(script=SCRIPTS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_who_waits_and_what_is_claimed_is_what_the_aggregate_says(
    tmp_path_factory: pytest.TempPathFactory, script: Script
) -> None:
    history = TestLog(tmp_path_factory.mktemp("lives") / "log.db")
    World(history).play([("a", command, number) for _, command, number in script])
    state, now = BLANK, OpenTurn()
    for recorded in history.log.read(limit=100_000):
        event = CODEC.decode(recorded.type, recorded.state)
        if recorded.stream != "user/a":
            continue
        state = evolve(state, event, recorded.version, recorded.recorded_at)
        if isinstance(event, TURN_EVENTS):
            now.take(recorded.recorded_at, event)
        assert waiting(now) == [pending.at for pending in state.pending]
        assert bool(now.run) == (state.run is not None)
        assert bool(now.delivering) == is_delivering(state)
    history.close()


def waiting(now: OpenTurn) -> list[int]:
    return [message.at for message in (*now.claimed, *now.waiting)]


def is_delivering(state: UserState) -> bool:
    return state.delivery is not None and not state.delivery.apology


def test_percentiles_are_exact(history: TestLog, views: Views) -> None:
    for n in range(1, 101):
        history.append("a", message(n))
        history.append("a", run_started(f"r{n}", n))
        history.append("a", run_completed(f"r{n}", parts=0))
    rebuild(views, history.log, MODELS)
    report = analytics.latency(views, Span())
    with views.read() as db:
        totals = sorted(row[0] for row in db.execute("SELECT total FROM turns"))
    (total,) = [part for part in report.parts if part.part == "total"]
    assert (report.turns, report.outcomes, report.runs) == (100, {"silent": 100}, 100)
    expected = [totals[rank - 1] for rank in (50, 90, 95, 99, 100)]
    assert [total.p50, total.p90, total.p95, total.p99, total.longest] == expected
    assert [part.part for part in report.parts] == [
        *("gathering", "waiting", "retrying", "handing_over", "total", "reply")
    ]


def test_the_parts_of_a_turn_add_up(history: TestLog, views: Views) -> None:
    World(history).play([("a", command, 8) for command in (0, 1, 5, 6, 2, 3, 4, 3, 4) * 5])
    rebuild(views, history.log, MODELS)
    with views.read() as db:
        rows = db.execute(
            "SELECT gathering + waiting + retrying + submitting + thinking + handing_over, total"
            " FROM turns WHERE thinking IS NOT NULL"
        ).fetchall()
    assert rows
    assert all(parts == total for parts, total in rows)
