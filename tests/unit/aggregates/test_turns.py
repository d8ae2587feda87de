"""When a burst is a turn, who takes it, and how an attempt ends."""

from __future__ import annotations

import pytest

from app.aggregates import (
    BufferPolicy,
    Busy,
    Claim,
    Claimed,
    Completed,
    Held,
    HeldByAnother,
    NotDue,
    OnlyParked,
    RunSuperseded,
    Spent,
    Submitted,
    TakeOver,
    User,
    Waiting,
)
from app.aggregates import events as e
from app.aggregates.answers import NothingLeft
from tests.unit.aggregates.scenario import (
    NOTHING,
    POLICY,
    SPENT,
    Given,
    When,
    at,
    key,
    message,
    parked,
    part_sent,
    part_started,
    ref,
    registered,
    run_completed,
    run_started,
    sealed,
    tokens,
)

THREAD = e.ThreadStarted(thread="conv_1", reason="first_time")
RUNNING = (registered(), THREAD, message(1), run_started("r1", 3))


def claim(given: Given, seconds: float, run: str = "r1") -> When[Claim]:
    return given.when(
        lambda u: u.claim(run, node="a", incarnation="1", now=at(seconds), policy=POLICY)
    )


# --- due -----------------------------------------------------------------------------------------


def test_nothing_is_due_while_nothing_waits() -> None:
    assert Given(registered()).user.due_at(POLICY) is None


def test_a_message_is_due_5_seconds_after_it() -> None:
    assert Given(message(1)).user.due_at(POLICY) == at(5)


def test_another_message_starts_the_quiet_anew() -> None:
    assert Given(message(1), (4, message(2))).user.due_at(POLICY) == at(9)


def test_typing_extends_the_quiet() -> None:
    assert Given(message(1), (4, e.TypingObserved())).user.due_at(POLICY) == at(9)


def test_a_burst_is_due_30_seconds_after_its_first_message() -> None:
    burst = [(4.0 * n, message(n)) for n in range(20)]
    assert Given(*burst).user.due_at(POLICY) == at(30)


def test_50_messages_are_due_at_once() -> None:
    burst = [(0.01 * n, message(n)) for n in range(49)]
    assert Given(*burst).user.due_at(POLICY) == at(5.48)
    assert Given(*burst, (0.49, message(49))).user.due_at(POLICY) == at(0.49)
    assert Given(*burst, (0.49, message(49)), (0.6, message(50))).user.due_at(POLICY) == at(0.49)


def test_messages_beyond_what_is_kept_count_too() -> None:
    policy = BufferPolicy(most=300)
    burst = [(0.001 * n, message(n)) for n in range(300)]
    assert Given(*burst[:-1]).user.due_at(policy) == at(5.298)
    assert Given(*burst).user.due_at(policy) == at(0.299)


def test_nothing_is_due_while_a_run_or_a_delivery_is_open() -> None:
    running = (message(1), run_started("r1", 1), message(2))
    assert Given(*running).user.due_at(POLICY) is None
    assert Given(*running, run_completed("r1")).user.due_at(POLICY) is None
    done = (run_completed("r1"), part_started("r1"), part_sent("r1"))
    assert Given(*running, *done).user.due_at(POLICY) == at(5)


def test_a_failed_turn_is_not_due_before_its_retry() -> None:
    failed = e.RunFailed(run="r1", code="timeout", retry_at=at(60))
    assert Given(message(1), run_started("r1", 1), failed).user.due_at(POLICY) == at(60)


def test_a_message_taken_back_makes_nothing_due() -> None:
    assert Given(message(1), e.MessageDeleted(ref=ref(1))).user.due_at(POLICY) is None


# --- the claim -----------------------------------------------------------------------------------


def test_a_due_turn_is_claimed_with_all_that_waits() -> None:
    given = Given(registered(), message(1), (1, message(2)))
    done = claim(given, 6).then(run_started("r1", 3)).and_answers(Claimed("r1", 1, 3))
    run = done.state.run
    assert run is not None
    assert (run.id, run.node, run.incarnation, run.attempt) == ("r1", "a", "1", 1)
    assert (run.version, run.started_at, run.thread) == (4, at(6), None)


def test_a_turn_is_not_claimed_early() -> None:
    claim(Given(message(1)), 4.9).then(*NOTHING).and_answers(NotDue(at(5)))


def test_nothing_is_claimed_where_nothing_waits() -> None:
    claim(Given(registered()), 99).then(*NOTHING).and_answers(NotDue(None))


def test_a_claimed_turn_is_not_claimed_again() -> None:
    given = Given(message(1), run_started("other", 1), message(2))
    claim(given, 99).then(*NOTHING).and_answers(Busy("other"))


def test_a_turn_waits_for_the_delivery_before_it() -> None:
    given = Given(message(1), run_started("other", 1), run_completed("other"), message(2))
    claim(given, 99).then(*NOTHING).and_answers(Busy("other"))


def test_a_parked_turn_is_not_claimed() -> None:
    given = Given(message(1), run_started("other", 1), parked(1))
    claim(given, 99).then(*NOTHING).and_answers(OnlyParked())


def test_a_turn_put_back_is_claimed_as_its_next_attempt() -> None:
    failed = e.RunFailed(run="r0", code="timeout", retry_at=at(7))
    given = Given(message(1), run_started("r0", 1), failed)
    claim(given, 7).and_answers(Claimed("r1", 2, 1))


# --- submitted, completed ------------------------------------------------------------------------


def test_the_responses_id_is_recorded_with_its_thread() -> None:
    done = Given(*RUNNING).when(lambda u: u.run_submitted("r1", "resp", now=at(6)))
    done.then(
        e.RunSubmitted(run="r1", response="resp", thread="conv_1", cor="r1", cau=4)
    ).and_answers(Submitted(5))
    assert done.state.run is not None
    assert done.state.run.response == "resp"


def complete(given: Given, billed: object = SPENT, **changes: object) -> When[object]:
    arguments: dict[str, object] = {
        "reply": sealed("reply"),
        "parts": 1,
        "billed": billed,
        "now": at(8),
    } | changes
    return given.when(lambda u: u.run_completed("r1", "resp", **arguments))  # type: ignore[arg-type]


def counted(thread: str = "conv_1") -> e.TokensIncremented:
    return e.TokensIncremented(
        thread=thread,
        run="r1",
        total=150,
        input=100,
        output=50,
        cached=20,
        reasoning=5,
        model="gpt",
        cor="r1",
    )


def test_reply_and_tokens_are_one_append_and_answer_the_messages() -> None:
    done = complete(Given(*RUNNING, message(2)), last_item="item_9")
    event = run_completed("r1", cau=4)
    done.then(
        e.RunCompleted(
            run="r1",
            response="resp",
            reply=event.reply,
            parts=1,
            last_item="item_9",
            cor="r1",
            cau=4,
        ),
        counted(),
    ).and_answers(Completed(6, 150))
    state = done.state
    assert [p.version for p in state.pending] == [5]
    assert state.run is None
    assert state.thread is not None
    assert (state.thread.tokens, state.thread.last_item) == (150, "item_9")
    assert state.delivery is not None
    assert (state.delivery.run, state.delivery.version, state.delivery.parts) == ("r1", 6, 1)
    assert (state.delivery.node, state.delivery.apology) == ("a", False)


def test_usage_that_nobody_knows_is_recorded_as_unknown() -> None:
    unknown = e.UsageUnknown(run="r1", thread="conv_1", cor="r1")
    done = complete(Given(*RUNNING), "unknown").then(run_completed("r1", cau=4), unknown)
    done.and_answers(Completed(5, 0))


@pytest.mark.parametrize("total", [0, -5])
def test_counts_of_zero_and_less_are_skipped(total: int) -> None:
    complete(Given(*RUNNING), Spent(total)).then(run_completed("r1", cau=4)).and_answers(
        Completed(5, 0)
    )


def test_tokens_of_a_thread_that_was_left_do_not_count() -> None:
    given = Given(*RUNNING, e.ThreadReset(thread="conv_1", reason="manual"))
    assert complete(given).then(run_completed("r1", cau=4), counted()).state.thread is None
    state = Given(registered(), THREAD, tokens(40, "conv_0")).state
    assert state.thread is not None
    assert state.thread.tokens == 0


def test_an_empty_reply_opens_no_delivery() -> None:
    done = complete(Given(*RUNNING), parts=0)
    assert done.state.delivery is None
    assert done.state.pending == ()


def test_a_thread_started_during_the_run_is_the_runs() -> None:
    gone = e.ThreadReset(thread="conv_1", reason="gone")
    new = e.ThreadStarted(thread="conv_2", reason="gone")
    done = complete(Given(*RUNNING, gone, new)).then(run_completed("r1", cau=4), counted("conv_2"))
    assert done.state.thread is not None
    assert done.state.thread.tokens == 150


@pytest.mark.parametrize("current", ["r2", None])
def test_a_run_that_lost_its_turn_records_nothing(current: str | None) -> None:
    cancelled = e.RunCancelled(run="r1", reason="orphaned")
    past = (*RUNNING, cancelled, *([run_started("r2", 3, 2)] if current else []))
    refused = RunSuperseded("r1", current)

    def check(command: object) -> None:
        Given(*past).when(command).then(*NOTHING).and_answers(refused)  # type: ignore[arg-type]

    complete(Given(*past)).then(*NOTHING).and_answers(refused)
    check(lambda u: u.run_submitted("r1", "resp", now=at(9)))
    check(lambda u: u.run_failed("r1", "timeout", billed=SPENT, now=at(9)))
    check(lambda u: u.run_cancelled("r1", "orphaned", billed="unknown", now=at(9)))
    check(lambda u: u.start_thread("conv_9", run="r1", now=at(9)))
    check(lambda u: u.reset_thread("gone", thread="conv_1", run="r1", now=at(9)))


def test_events_about_a_run_that_is_not_open_change_nothing() -> None:
    before = Given(message(1)).state
    submitted = e.RunSubmitted(run="r9", response="resp")
    assert Given(message(1), submitted, run_completed("r9")).state == before


# --- failed, cancelled ---------------------------------------------------------------------------


def test_a_failed_attempt_is_tried_again_later_and_its_tokens_count() -> None:
    submitted = e.RunSubmitted(run="r1", response="resp", thread="conv_1")
    done = Given(*RUNNING, submitted).when(
        lambda u: u.run_failed("r1", "incomplete", billed=SPENT, now=at(9), retry_at=at(12))
    )
    failed = e.RunFailed(
        run="r1", code="incomplete", retry_at=at(12), response="resp", cor="r1", cau=4
    )
    done.then(failed, counted()).and_answers(Waiting(at(12)))
    assert done.state.attempts == 1
    assert done.state.thread is not None
    assert done.state.thread.tokens == 150
    assert done.user.due_at(POLICY) == at(12)


def test_a_request_that_was_never_made_costs_nothing() -> None:
    done = Given(*RUNNING).when(
        lambda u: u.run_failed("r1", "refused", billed="nothing", now=at(9), retry_at=at(12))
    )
    done.then(e.RunFailed(run="r1", code="refused", retry_at=at(12), cor="r1", cau=4))


def test_messages_that_come_during_a_failing_run_join_its_next_attempt() -> None:
    failed = e.RunFailed(run="r0", code="timeout", retry_at=at(7))
    given = Given(message(1), run_started("r0", 1), message(2), failed)
    claim(given, 7).and_answers(Claimed("r1", 2, 3))


def cancel(user: User, reason: e.CancelReason, retry_at: int | None = None) -> object:
    return user.run_cancelled("r1", reason, billed="nothing", now=at(9), retry_at=retry_at)


def test_an_orphaned_run_makes_its_turn_due_again_as_another_attempt() -> None:
    done = Given(*RUNNING).when(
        lambda u: u.run_cancelled("r1", "orphaned", billed="unknown", now=at(9))
    )
    cancelled = e.RunCancelled(run="r1", reason="orphaned", cor="r1", cau=4)
    done.then(cancelled, e.UsageUnknown(run="r1", thread="conv_1", cor="r1"))
    done.and_answers(Waiting(0))
    assert done.state.attempts == 1
    assert done.user.due_at(POLICY) == at(5)


@pytest.mark.parametrize("reason", ["thread_busy", "superseded", "operator"])
def test_a_run_that_could_not_start_is_no_attempt(reason: e.CancelReason) -> None:
    done = Given(*RUNNING).when(lambda u: cancel(u, reason, retry_at=at(20)))
    done.then(e.RunCancelled(run="r1", reason=reason, retry_at=at(20), cor="r1", cau=4))
    assert done.state.attempts == 0
    assert done.user.due_at(POLICY) == at(20)


def test_a_run_whose_messages_were_taken_back_ends_without_an_apology() -> None:
    gone = (*RUNNING, e.MessageDeleted(ref=ref(1)))
    failed = e.RunFailed(run="r1", code="x", cor="r1", cau=4)
    done = Given(*gone).when(lambda u: u.run_failed("r1", "x", billed="nothing", now=at(9)))
    done.then(failed).and_answers(NothingLeft())
    later = Given(*gone, message(2)).when(lambda u: cancel(u, "orphaned"))
    later.and_answers(NothingLeft())
    assert later.state.attempts == 0


def test_a_message_taken_back_during_the_run_is_not_waiting_after_it() -> None:
    done = Given(*RUNNING).when(lambda u: u.delete_message(ref(1), key=key("d"), now=at(7)))
    assert done.state.pending == ()
    assert done.state.run is not None


# -- taking over -----------------------------------------------------------------------------------


def take_over(user: User, incarnation: str = "2", dead: str = "1") -> TakeOver:
    return user.take_over("r1", dead, node="b", incarnation=incarnation, now=at(20))


TAKEN = e.TurnTakenOver(run="r1", node="b", incarnation="2", before="1", cor="r1", cau=2)


def test_a_run_of_the_dead_is_taken_over_once() -> None:
    done = Given(message(1), run_started("r1", 1)).when(take_over)
    done.then(TAKEN).and_answers(Held("r1"))
    assert done.state.run is not None
    assert (done.state.run.node, done.state.run.incarnation) == ("b", "2")
    given = Given(message(1), run_started("r1", 1), TAKEN)
    late = given.when(lambda u: take_over(u, "3"))
    late.then(*NOTHING).and_answers(HeldByAnother("r1", "2"))
    given.when(take_over).then(*NOTHING).and_answers(Held("r1"))


def test_what_is_over_is_not_taken_over() -> None:
    nothing = Given(message(1)).when(take_over).then(*NOTHING)
    nothing.and_answers(RunSuperseded("r1", None))
    over = Given(message(1), run_started("r1", 1), run_completed("r1", parts=0)).when(take_over)
    over.then(*NOTHING).and_answers(RunSuperseded("r1", None))


def test_a_run_that_was_taken_over_takes_the_lease_of_its_delivery_along() -> None:
    state = Given(message(1), run_started("r1", 1), TAKEN, run_completed("r1")).state
    assert state.delivery is not None
    assert (state.delivery.node, state.delivery.incarnation) == ("b", "2")
