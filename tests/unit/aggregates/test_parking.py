"""A turn that keeps failing is given up: one apology, and an operator decides."""

from __future__ import annotations

import pytest

from app.aggregates import Busy, Done, GivenUp, Nothing, PartStarted, Waiting
from app.aggregates import events as e
from tests.unit.aggregates.scenario import (
    APOLOGY,
    NOTHING,
    POLICY,
    Given,
    Step,
    at,
    message,
    parked,
    part_sent,
    part_started,
    run_completed,
    run_started,
    sealed,
)


def failing(attempt: int) -> tuple[Step, ...]:
    return (message(1), e.RunFailed(run="r0", code="x"), run_started("r1", 1, attempt))


def given_up(reason: e.ParkReason, attempts: int = 3) -> e.TurnParked:
    return e.TurnParked(
        reason=reason,
        attempts=attempts,
        up_to=1,
        run="r1-apology",
        apology=sealed("sorry"),
        cor="r1",
        cau=3,
    )


def test_the_last_failure_parks_the_turn_and_apologises() -> None:
    done = Given(*failing(3), message(2)).when(
        lambda u: u.run_failed("r1", "x", billed="nothing", now=at(9), apology=APOLOGY)
    )
    failed = e.RunFailed(run="r1", code="x", cor="r1", cau=3)
    done.then(failed, given_up("failed")).and_answers(GivenUp(3, apologise=True))
    state = done.state
    assert state.parked is not None
    assert [p.version for p in state.parked.messages] == [1]
    assert [p.version for p in state.pending] == [4]
    assert (state.attempts, state.retry_at) == (0, 0)
    assert state.delivery is not None
    assert (state.delivery.run, state.delivery.version) == ("r1-apology", 6)
    assert state.delivery.apology


@pytest.mark.parametrize("attempt", [1, 2])
def test_an_orphaned_turn_is_tried_three_times(attempt: int) -> None:
    done = Given(*failing(attempt)).when(
        lambda u: u.run_cancelled("r1", "orphaned", billed="nothing", now=at(9), apology=APOLOGY)
    )
    done.and_answers(Waiting(0))
    assert done.state.parked is None


def test_the_third_orphaned_run_parks_the_turn() -> None:
    done = Given(*failing(3)).when(
        lambda u: u.run_cancelled("r1", "orphaned", billed="nothing", now=at(9), apology=APOLOGY)
    )
    cancelled = e.RunCancelled(run="r1", reason="orphaned", cor="r1", cau=3)
    done.then(cancelled, given_up("orphaned")).and_answers(GivenUp(3, apologise=True))


def test_a_busy_thread_never_parks() -> None:
    done = Given(*failing(3)).when(
        lambda u: u.run_cancelled("r1", "thread_busy", billed="nothing", now=at(9), retry_at=at(12))
    )
    done.and_answers(Waiting(at(12)))


def test_the_apology_is_delivered_as_a_reply_is() -> None:
    given = Given(message(1), run_started("r1", 1), parked(1, run="sorry"))
    given.when(
        lambda u: u.delivery_started("sorry", 0, deadline=at(9), incarnation="2", now=at(0))
    ).then(
        e.DeliveryStarted(run="sorry", part=0, deadline=at(9), attempt=1, cor="sorry", cau=3)
    ).and_answers(PartStarted(0, 1))


def test_a_new_message_makes_a_new_turn_with_itself_only() -> None:
    given = Given(message(1), run_started("r1", 1), parked(1), message(2))
    done = given.when(lambda u: u.claim("r2", node="a", incarnation="1", now=at(5), policy=POLICY))
    done.then(run_started("r2", 4))
    assert [p.version for p in done.state.pending] == [4]


def test_a_retried_turn_comes_first_and_is_due() -> None:
    given = Given(message(1), run_started("r1", 1), parked(1), message(2))
    done = given.when(lambda u: u.turn_retried("ana", why="fixed", now=at(9)))
    done.then(e.TurnRetried(by="ana", why="fixed")).and_answers(Done(5))
    assert [p.version for p in done.state.pending] == [1, 4]
    assert done.state.parked is None
    assert done.user.due_at(POLICY) == at(5)


def test_a_retried_turn_that_fails_again_does_not_apologise_again() -> None:
    retried = (message(1), run_started("r0", 1), parked(1), e.TurnRetried(by="ana"))
    done = Given(*retried, run_started("r1", 1)).when(
        lambda u: u.run_failed("r1", "x", billed="nothing", now=at(9), apology=APOLOGY)
    )
    again = e.TurnParked(reason="failed", attempts=1, up_to=1, cor="r1", cau=5)
    done.then(e.RunFailed(run="r1", code="x", cor="r1", cau=5), again)
    done.and_answers(GivenUp(1, apologise=False))
    assert done.state.delivery is None


def test_the_next_turn_after_an_answer_may_apologise() -> None:
    past = (
        message(1),
        run_started("r0", 1),
        parked(1),
        e.TurnRetried(by="ana"),
        run_started("r1", 1),
        run_completed("r1"),
    )
    assert not Given(*past).state.apologised


def test_a_turn_is_not_retried_while_another_runs() -> None:
    given = Given(message(1), run_started("r1", 1), parked(1), message(2), run_started("r2", 4))
    given.when(lambda u: u.turn_retried("ana", now=at(9))).then(*NOTHING).and_answers(Busy("r2"))


def test_retrying_while_the_apology_is_delivered_loses_nothing() -> None:
    given = Given(
        message(1),
        run_started("r1", 1),
        parked(1, run="sorry"),
        part_started("sorry"),
        e.TurnRetried(by="ana"),
        part_sent("sorry"),
    )
    assert [p.version for p in given.state.pending] == [1]
    assert given.user.due_at(POLICY) == at(5)


def test_a_dropped_turn_is_closed() -> None:
    given = Given(message(1), run_started("r1", 1), parked(1))
    done = given.when(lambda u: u.turn_dropped("ana", why="spam", now=at(9)))
    done.then(e.TurnDropped(by="ana", why="spam"))
    assert done.state.parked is None
    assert done.user.due_at(POLICY) is None


def test_an_operator_cannot_retry_or_drop_what_is_not_parked() -> None:
    given = Given(message(1))
    given.when(lambda u: u.turn_retried("ana", now=at(9))).then(*NOTHING).and_answers(Nothing())
    given.when(lambda u: u.turn_dropped("ana", now=at(9))).then(*NOTHING).and_answers(Nothing())
    assert Given(message(1), e.TurnRetried(by="ana")).state == Given(message(1)).state


def test_turns_parked_one_after_the_other_are_kept_together() -> None:
    given = Given(
        message(1), run_started("r1", 1), parked(1), message(2), run_started("r2", 4), parked(4)
    )
    assert given.state.parked is not None
    assert given.state.parked.turns == 2
    assert [p.version for p in given.state.parked.messages] == [1, 4]
