"""What was before Hilo fills in what is missing, and overrules nothing that Hilo has seen."""

from __future__ import annotations

from app.aggregates import Nothing
from app.aggregates import events as e
from eventstore.types import IdempotencyKey, Micros
from tests.unit.aggregates.scenario import Given, at, message, registered, sealed, tokens

SEALED = sealed()
KEY = IdempotencyKey(b"k" * 16)
LONG_AGO = Micros(1_600_000_000_000_000)
LATER = Micros(LONG_AGO + 1_000_000)
OLD = e.ThreadStarted(thread="thread_old", reason="first_time", at=LONG_AGO)


def activity(when: int, thread: str | None = "thread_old") -> e.ActivityRecorded:
    return e.ActivityRecorded(last_activity=when, tokens=0, thread=thread, at=when)


def test_an_imported_message_waits_for_no_answer_and_has_its_own_time() -> None:
    done = Given(registered()).when(
        lambda u: u.import_message(KEY, "text", SEALED, sender="person", at=LONG_AGO, now=at(1))
    )
    done.then(e.MessageImported(ref=KEY, kind="text", content=SEALED, at=LONG_AGO))
    assert done.state.pending == ()
    assert done.state.activity_at == LONG_AGO


def test_an_older_message_does_not_move_the_last_activity_back() -> None:
    before = Given(registered(), message(1)).state
    after = (
        Given(registered(), message(1))
        .when(
            lambda u: u.import_message(
                KEY, "text", SEALED, sender="business", at=LONG_AGO, now=at(1)
            )
        )
        .state
    )
    assert after == before


def test_a_thread_is_linked_with_the_time_it_began() -> None:
    Given(registered()).when(
        lambda u: u.import_thread("thread_old", as_of=LATER, at=LONG_AGO, now=at(1))
    ).then(OLD)


def test_an_imported_thread_is_as_old_as_its_file_says() -> None:
    thread = Given(registered(), OLD).state.thread
    assert thread is not None
    assert thread.started_at == LONG_AGO


def test_a_newer_file_replaces_the_thread_of_an_older_one() -> None:
    Given(registered(), OLD, activity(LONG_AGO)).when(
        lambda u: u.import_thread("thread_new", as_of=LATER, at=LATER, now=at(1))
    ).then(
        e.ThreadReset(thread="thread_old", reason="thread_changed", at=LATER),
        e.ThreadStarted(thread="thread_new", reason="thread_changed", at=LATER, cau=4),
    )


def test_an_older_file_the_same_file_and_a_conversation_of_ours_change_nothing() -> None:
    Given(registered(), OLD, activity(LATER)).when(
        lambda u: u.import_thread("thread_older", as_of=LONG_AGO, at=LONG_AGO, now=at(1))
    ).then().and_answers(Nothing())
    Given(registered(), OLD, activity(LATER)).when(
        lambda u: u.import_thread("thread_old", as_of=LATER, at=LONG_AGO, now=at(1))
    ).then()
    ours = e.ThreadStarted(thread="conv_1", reason="first_time")
    Given(registered(), ours, tokens(5)).when(
        lambda u: u.import_thread("thread_old", as_of=at(9), at=LONG_AGO, now=at(10))
    ).then()
    left = e.ThreadReset(thread="conv_1", reason="cleanup", left_behind=5)
    Given(registered(), ours, tokens(5), left).when(
        lambda u: u.import_thread("thread_old", as_of=at(9), at=LONG_AGO, now=at(10))
    ).then()


def test_the_client_view_moves_forward_only() -> None:
    Given(registered(), OLD).when(lambda u: u.import_activity(as_of=LATER, now=at(1))).then(
        activity(LATER)
    )
    Given(registered(), OLD, activity(LATER)).when(
        lambda u: u.import_activity(as_of=LONG_AGO, now=at(1))
    ).then()


def test_a_later_older_chat_does_not_take_the_recorded_activity_back() -> None:
    imported = e.MessageImported(ref=KEY, kind="text", content=SEALED, at=LONG_AGO)
    state = Given(registered(), OLD, activity(LATER), imported).state
    assert state.activity_at == LATER


def test_names_are_taken_from_a_file_only_while_it_is_the_newest() -> None:
    Given(registered()).when(lambda u: u.import_profile(SEALED, as_of=LONG_AGO, now=at(1))).then(
        e.ProfileUpdated(profile=SEALED, at=LONG_AGO)
    )
    known = e.ProfileUpdated(profile=SEALED)
    Given(registered(), known, message(1)).when(
        lambda u: u.import_profile(SEALED, as_of=LONG_AGO, now=at(1))
    ).then()
