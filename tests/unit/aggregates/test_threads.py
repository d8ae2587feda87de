"""Tokens belong to the thread; the client view moves ten minutes after the last event."""

from __future__ import annotations

import pytest

from app.aggregates import Nothing, ThreadKept, ThreadLeft, ThreadLinked
from app.aggregates import events as e
from tests.unit.aggregates.scenario import (
    NOTHING,
    SECOND,
    Given,
    at,
    message,
    registered,
    run_started,
    tokens,
)

DAY = 86_400
STARTED = e.ThreadStarted(thread="conv_1", reason="first_time")
LINKED = (registered(), STARTED, tokens(600))


def reset(reason: e.ResetReason, left_behind: int = 600) -> e.ThreadReset:
    return e.ThreadReset(thread="conv_1", reason=reason, left_behind=left_behind)


def test_the_first_thread_starts_at_zero() -> None:
    done = Given(registered()).when(lambda u: u.start_thread("conv_1", now=at(1)))
    done.then(STARTED).and_answers(ThreadLinked("conv_1", "first_time"))
    assert done.state.thread is not None
    assert (done.state.thread.tokens, done.state.thread.started_at) == (0, at(1))


def test_a_thread_of_a_user_nobody_registered_says_so() -> None:
    Given().when(lambda u: u.start_thread("conv_1", now=at(1))).then(
        e.ThreadStarted(thread="conv_1", reason="user_not_found")
    )


def test_tokens_add_up_on_the_same_thread() -> None:
    state = Given(*LINKED, tokens(450)).state
    assert state.thread is not None
    assert state.thread.tokens == 1050


def test_another_thread_leaves_the_old_count_behind_and_says_how_much() -> None:
    done = Given(*LINKED).when(lambda u: u.start_thread("conv_2", now=at(1)))
    done.then(
        reset("thread_changed"),
        e.ThreadStarted(thread="conv_2", reason="thread_changed", cau=4),
    ).and_answers(ThreadLinked("conv_2", "thread_changed", "conv_1", 600))
    assert done.state.thread is not None
    assert done.state.thread.tokens == 0


def test_an_expired_thread_is_renewed_with_that_reason() -> None:
    Given(*LINKED).when(lambda u: u.start_thread("conv_2", reason="expired", now=at(1))).then(
        reset("expired"), e.ThreadStarted(thread="conv_2", reason="expired", cau=4)
    )


def test_linking_the_current_thread_again_is_nothing() -> None:
    Given(*LINKED).when(lambda u: u.start_thread("conv_1", now=at(1))).then(*NOTHING).and_answers(
        ThreadKept()
    )


@pytest.mark.parametrize("reason", ["gone", "manual", "expired", "restored"])
def test_a_reset_unlinks_the_thread_and_records_what_is_left_behind(
    reason: e.ResetReason,
) -> None:
    done = Given(*LINKED).when(lambda u: u.reset_thread(reason, thread="conv_1", now=at(1)))
    done.then(reset(reason)).and_answers(ThreadLeft("conv_1", reason, 600))
    assert done.state.thread is None
    next_one = Given(*LINKED, reset(reason)).when(lambda u: u.start_thread("conv_2", now=at(2)))
    next_one.then(e.ThreadStarted(thread="conv_2", reason=reason))


def test_a_thread_that_is_not_current_is_not_reset() -> None:
    for given in (Given(*LINKED), Given(registered())):
        done = given.when(lambda u: u.reset_thread("gone", thread="conv_0", now=at(1)))
        done.then(*NOTHING).and_answers(ThreadKept())


def test_an_empty_thread_is_kept_and_counts_from_zero() -> None:
    done = Given(*LINKED).when(lambda u: u.empty_thread(thread="conv_1", now=at(1)))
    done.then(reset("empty")).and_answers(ThreadLeft("conv_1", "empty", 600))
    assert done.state.thread is not None
    assert (done.state.thread.id, done.state.thread.tokens) == ("conv_1", 0)
    nothing = Given(registered(), STARTED)
    nothing.when(lambda u: u.empty_thread(thread="conv_1", now=at(1))).then(*NOTHING)


def test_the_current_run_may_replace_its_thread() -> None:
    given = Given(*LINKED, message(1), run_started("r1", 4))
    done = given.when(lambda u: u.reset_thread("gone", thread="conv_1", run="r1", now=at(1)))
    done.then(reset("gone"))
    new = given.when(lambda u: u.start_thread("conv_2", run="r1", now=at(1)))
    assert new.state.run is not None
    assert new.state.run.thread == "conv_2"


def test_a_reset_of_an_unknown_thread_only_leaves_its_reason() -> None:
    past = e.ThreadReset(thread="conv_9", reason="restored")
    state = Given(*LINKED, past).state
    assert state.thread is not None
    assert state.last_reset == "restored"


def test_what_a_thread_needs() -> None:
    age = 90 * DAY * SECOND
    assert Given(registered()).user.thread_needs(at(0), age) == "start"
    assert Given(*LINKED).user.thread_needs(at(90 * DAY - 1), age) == "ok"
    assert Given(*LINKED).user.thread_needs(at(90 * DAY), age) == "renew"


def test_a_clean_up_unlinks_what_is_at_the_limit_now_and_nothing_else() -> None:
    done = Given(*LINKED).when(lambda u: u.clean_up(limit=600, now=at(1)))
    done.then(reset("cleanup")).and_answers(ThreadLeft("conv_1", "cleanup", 600))
    assert done.state.thread is None
    for given in (Given(*LINKED), Given(registered())):
        kept = given.when(lambda u: u.clean_up(limit=601, now=at(1)))
        kept.then(*NOTHING).and_answers(ThreadKept())


# --- the client view -----------------------------------------------------------------------------


def test_the_view_moves_ten_minutes_after_the_last_event() -> None:
    given = Given(*LINKED, (60, message(1)))
    assert given.user.activity_due_at() == at(660)
    early = given.when(lambda u: u.record_activity(now=at(659)))
    early.then(*NOTHING).and_answers(Nothing())
    done = given.when(lambda u: u.record_activity(now=at(660)))
    done.then(e.ActivityRecorded(last_activity=at(60), tokens=600, thread="conv_1"))
    assert done.state.recorded is not None
    assert done.user.activity_due_at() is None
    done.user.record_activity(now=at(9999))
    assert done.user.collect_events() == []


def test_a_shutdown_flushes_what_is_not_recorded_yet() -> None:
    Given(message(1)).when(lambda u: u.record_activity(now=at(0), delay=0)).then(
        e.ActivityRecorded(last_activity=at(0), tokens=0)
    )


def test_tokens_add_up_in_the_view_or_start_again_with_another_thread() -> None:
    """The example of M003: 600 recorded, 150 + 200 + 100 since."""
    recorded = e.ActivityRecorded(last_activity=at(0), tokens=600, thread="conv_1")
    since = (150, 200, 100)
    same = Given(*LINKED, recorded, *[tokens(n) for n in since])
    same.when(lambda u: u.record_activity(now=at(600))).then(
        e.ActivityRecorded(last_activity=at(0), tokens=1050, thread="conv_1")
    )
    changed = Given(
        *LINKED,
        recorded,
        reset("thread_changed"),
        e.ThreadStarted(thread="conv_2", reason="thread_changed"),
        *[tokens(n, "conv_2") for n in since],
    )
    changed.when(lambda u: u.record_activity(now=at(600))).then(
        e.ActivityRecorded(last_activity=at(0), tokens=450, thread="conv_2")
    )


def test_a_clean_up_moves_the_view_but_is_no_activity_of_the_person() -> None:
    given = Given(*LINKED, (1000, reset("cleanup")))
    given.when(lambda u: u.record_activity(now=at(1600))).then(
        e.ActivityRecorded(last_activity=at(0), tokens=0)
    )
