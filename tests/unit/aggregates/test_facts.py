"""What happens to a user is recorded as it is, and changes what waits."""

from __future__ import annotations

from app.aggregates import Done, Nothing
from app.aggregates import events as e
from app.aggregates.open_work import MAX_EARLY, MAX_SENT, MAX_SIGNS, MAX_WAITING
from tests.unit.aggregates.scenario import (
    NOTHING,
    Given,
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
)


def test_a_person_is_registered_once() -> None:
    chat = sealed("chat")
    first = Given().when(lambda u: u.register("whapi", chat, now=at(0)))
    first.then(registered()).and_answers(Done(1))
    assert first.state.contact is not None
    assert first.state.contact.registered_at == at(0)
    again = Given(registered()).when(lambda u: u.register("whapi", chat, now=at(0)))
    again.then(*NOTHING).and_answers(Nothing())


def test_a_profile_replaces_the_last_one() -> None:
    done = Given().when(lambda u: u.update_profile(sealed("Ana"), now=at(0)))
    done.then(e.ProfileUpdated(profile=sealed("Ana")))
    assert done.state.profile == sealed("Ana")


def test_a_message_waits_and_its_key_is_its_ref() -> None:
    done = Given(registered()).when(
        lambda u: u.receive_message(ref(1), "text", sealed("1"), now=at(2))
    )
    done.then(message(1)).and_answers(Done(2))
    assert [k for _, k in done.triggered] == [ref(1)]
    assert [(p.ref, p.version, p.at, p.text) for p in done.state.pending] == [(ref(1), 2, at(2), 2)]


def test_noise_is_recorded_and_never_waits() -> None:
    done = Given().when(
        lambda u: u.receive_message(ref(1), "text", sealed("1"), now=at(0), answerable=False)
    )
    done.then(message(1, answerable=False))
    assert done.state.pending == ()
    assert done.state.activity_at == at(0)


def test_the_senders_time_travels_with_the_message() -> None:
    done = Given().when(lambda u: u.receive_message(ref(1), "text", sealed("1"), now=at(0), at=77))
    assert done.triggered[0][0].at == 77


def test_an_edit_gives_a_waiting_message_its_new_text() -> None:
    done = Given(message(1), message(2)).when(
        lambda u: u.edit_message(ref(1), sealed("new"), key=key("edit"), now=at(1), early=True)
    )
    done.then(e.MessageEdited(ref=ref(1), content=sealed("new"), cau=1))
    assert [(p.version, p.text) for p in done.state.pending] == [(1, 3), (2, 2)]


def test_an_edit_reaches_a_parked_message_too() -> None:
    done = Given(message(1), run_started("r", 1), parked(1)).when(
        lambda u: u.edit_message(ref(1), sealed("new"), key=key("edit"), now=at(1))
    )
    assert done.state.parked is not None
    assert [p.text for p in done.state.parked.messages] == [4]


def test_an_edit_that_comes_first_is_applied_on_arrival() -> None:
    early = Given().when(
        lambda u: u.edit_message(ref(1), sealed("new"), key=key("edit"), now=at(0), early=True)
    )
    early.then(e.MessageEdited(ref=ref(1), content=sealed("new"), early=True))
    state = Given(*[event for event, _ in early.triggered], message(1)).state
    assert [(p.version, p.text) for p in state.pending] == [(2, 1)]
    assert state.early_edits == ()


def test_an_edit_of_an_answered_message_is_only_recorded() -> None:
    before = Given(message(1), run_started("r", 1), run_completed("r"))
    state = before.state
    done = before.when(lambda u: u.edit_message(ref(1), sealed(), key=key("e"), now=at(0)))
    done.then(e.MessageEdited(ref=ref(1), content=sealed()))
    assert done.state == state


def test_a_message_taken_back_no_longer_waits() -> None:
    done = Given(message(1)).when(lambda u: u.delete_message(ref(1), key=key("d"), now=at(1)))
    done.then(e.MessageDeleted(ref=ref(1), cau=1))
    assert [k for _, k in done.triggered] == [key("d")]
    assert done.state.pending == ()


def test_a_message_taken_back_before_it_came_never_waits() -> None:
    early = Given().when(lambda u: u.delete_message(ref(1), key=key("d"), now=at(0), early=True))
    early.then(e.MessageDeleted(ref=ref(1), early=True))
    state = Given(*[event for event, _ in early.triggered], message(1)).state
    assert state.pending == ()
    assert state.early_deletes == ()


def test_a_parked_message_taken_back_is_not_retried() -> None:
    done = Given(message(1), run_started("r", 1), parked(1)).when(
        lambda u: u.delete_message(ref(1), key=key("d"), now=at(1))
    )
    assert done.state.parked is None


def test_taking_back_everything_ends_the_turn_and_its_attempts() -> None:
    failed = e.RunFailed(run="r", code="timeout", retry_at=at(9))
    before = Given(message(1), run_started("r", 1), failed)
    assert (before.state.attempts, before.state.retry_at) == (1, at(9))
    done = before.when(lambda u: u.delete_message(ref(1), key=key("d"), now=at(1)))
    assert (done.state.attempts, done.state.retry_at) == (0, 0)


def test_only_so_many_early_edits_and_deletes_are_kept_the_newest() -> None:
    events = [e.MessageDeleted(ref=ref(n), early=True) for n in range(MAX_EARLY + 5)]
    events.append(e.MessageDeleted(ref=ref(MAX_EARLY), early=True))
    kept = Given(*events).state.early_deletes
    assert len(kept) == MAX_EARLY
    assert kept[0].ref == ref(5)
    assert kept[-1].ref == ref(MAX_EARLY)


def test_typing_is_recorded_while_a_message_waits_and_at_most_every_3_seconds() -> None:
    typing = e.TypingObserved()
    Given().when(lambda u: u.observe_typing("typing", now=at(0))).and_answers(Nothing())
    Given(message(1)).when(lambda u: u.observe_typing("typing", now=at(0))).then(typing)
    given = (message(1), (1.0, typing))
    Given(*given).when(lambda u: u.observe_typing("typing", now=at(3.9))).then(*NOTHING)
    Given(*given).when(lambda u: u.observe_typing("recording", now=at(4))).then(
        e.TypingObserved(presence="recording")
    )


def test_typing_is_not_recorded_for_messages_that_a_run_answers_already() -> None:
    given = (message(1), run_started("r", 1))
    Given(*given).when(lambda u: u.observe_typing("typing", now=at(9))).then(*NOTHING)
    Given(*given, message(2)).when(lambda u: u.observe_typing("typing", now=at(9))).then(
        e.TypingObserved()
    )


def test_what_a_human_agent_writes_is_recorded_and_never_waits() -> None:
    done = Given().when(lambda u: u.human_wrote(ref(5), sealed("h"), now=at(3)))
    done.then(e.HumanMessageSent(ref=ref(5), content=sealed("h")))
    assert [k for _, k in done.triggered] == [ref(5)]
    assert done.state.pending == ()
    assert done.state.activity_at == at(3)


def test_an_echo_of_an_unknown_send_is_a_sign_while_a_delivery_is_open() -> None:
    delivering = (message(1), run_started("r", 1), run_completed("r"), part_started("r"))
    done = Given(*delivering).when(
        lambda u: u.echo_observed(ref(9), sealed("hi"), key=key("echo"), now=at(0))
    )
    done.then(e.MessageEchoed(ref=ref(9), content=sealed("hi")))
    assert done.state.delivery is not None
    assert [(s.ref, s.version, s.how) for s in done.state.delivery.signs] == [(ref(9), 5, "echo")]


def test_an_echo_of_a_send_that_the_log_names_is_no_sign() -> None:
    delivering = (message(1), run_started("r", 1), run_completed("r", 2), part_sent("r"))
    done = Given(*delivering).when(
        lambda u: u.echo_observed(ref(900), sealed(), key=key("echo"), now=at(0))
    )
    assert done.state.delivery is not None
    assert done.state.delivery.signs == ()


def test_a_sign_is_gone_once_its_message_is_recorded_as_sent() -> None:
    echo = e.MessageEchoed(ref=ref(900), content=sealed())
    given = Given(message(1), run_started("r", 1), run_completed("r", 2), echo, part_sent("r"))
    assert given.state.delivery is not None
    assert given.state.delivery.signs == ()


def test_an_echo_says_more_than_a_status_of_the_same_message() -> None:
    delivering = (message(1), run_started("r", 1), run_completed("r"))
    status = e.MessageStatusChanged(ref=ref(9), status="sent")
    echo = e.MessageEchoed(ref=ref(9), content=sealed())
    for events in ((status, echo), (echo, status), (status, echo, status)):
        delivery = Given(*delivering, *events).state.delivery
        assert delivery is not None
        assert [sign.how for sign in delivery.signs] == ["echo"]


def test_signs_and_sent_refs_are_bounded() -> None:
    statuses = [e.MessageStatusChanged(ref=ref(n), status="sent") for n in range(100, 150)]
    many = 100
    given = Given(
        message(1),
        run_started("r", 1),
        run_completed("r", many),
        *statuses,
        *[part_sent("r", n, 1000 + n) for n in range(many - 1)],
    )
    assert given.state.delivery is not None
    assert len(given.state.delivery.signs) == MAX_SIGNS
    assert len(given.state.sent) == MAX_SENT
    assert given.state.sent[-1] == ref(1000 + many - 2)


def test_a_status_is_recorded_under_its_key() -> None:
    done = Given().when(lambda u: u.status_changed(ref(9), "read", key=key("s"), now=at(0)))
    done.then(e.MessageStatusChanged(ref=ref(9), status="read"))
    assert [k for _, k in done.triggered] == [key("s")]


def test_so_many_waiting_messages_are_kept_and_none_is_forgotten() -> None:
    many = MAX_WAITING + 57
    state = Given(*[message(n) for n in range(1, many + 1)]).state
    assert len(state.pending) == MAX_WAITING
    assert sum(p.count for p in state.pending) == many
    assert state.pending[-1].version == many


def test_messages_that_a_run_answers_are_never_mixed_with_later_ones() -> None:
    full = [message(n) for n in range(1, MAX_WAITING + 10)]
    up_to = len(full)
    later = [message(n) for n in range(1000, 1003)]
    state = Given(*full, run_started("r", up_to), *later).state
    assert len(state.pending) == MAX_WAITING + 1
    assert [p.count for p in state.pending if p.version > up_to] == [3]
    answered = Given(*full, run_started("r", up_to), *later, run_completed("r")).state
    assert sum(p.count for p in answered.pending) == 3
    retried = Given(
        *full,
        run_started("r", up_to),
        *later,
        e.RunFailed(run="r", code="x", retry_at=at(1)),
        run_started("r2", up_to + 4, attempt=2),
    ).state
    assert len(retried.pending) == MAX_WAITING
    assert sum(p.count for p in retried.pending) == len(full) + 3
