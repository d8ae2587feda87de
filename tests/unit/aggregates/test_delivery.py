"""A reply is handed over part by part, and every doubt is recorded."""

from __future__ import annotations

from app.aggregates import (
    Held,
    HeldByAnother,
    InFlight,
    NotThisPart,
    NotYet,
    PartPutBack,
    PartSettled,
    PartStarted,
    User,
)
from app.aggregates import events as e
from tests.unit.aggregates.scenario import (
    NOTHING,
    POLICY,
    Given,
    Step,
    at,
    message,
    part_sent,
    part_started,
    ref,
    run_completed,
    run_started,
    sealed,
)


def answered(parts: int = 1) -> tuple[Step, ...]:
    return (message(1), run_started("r1", 1), run_completed("r1", parts))


def start(user: User, part: int = 0, run: str = "r1") -> object:
    return user.delivery_started(run, part, deadline=at(30), incarnation="1", now=at(10))


def sent(user: User, part: int = 0, adopted: e.Adopted = "") -> object:
    return user.message_sent(
        "r1", part, ref=ref(900), sent=sealed("sent"), key=ref(900), now=at(11), adopted=adopted
    )


STARTED = part_started("r1", 0, deadline=at(30))


def test_a_part_is_announced_before_it_is_sent() -> None:
    done = Given(*answered()).when(start)
    done.then(
        e.DeliveryStarted(run="r1", part=0, deadline=at(30), attempt=1, cor="r1", cau=3)
    ).and_answers(PartStarted(0, 1))
    assert done.state.delivery is not None
    assert done.state.delivery.in_flight == at(30)


def test_a_part_is_not_sent_twice_at_a_time() -> None:
    Given(*answered(), STARTED).when(start).then(*NOTHING).and_answers(InFlight(0, at(30)))


def test_parts_go_in_order() -> None:
    given = Given(*answered(2))
    given.when(lambda u: start(u, 1)).then(*NOTHING).and_answers(NotThisPart(0))


def test_only_the_open_delivery_is_continued() -> None:
    other = Given(*answered()).when(lambda u: start(u, 0, "r9"))
    other.then(*NOTHING).and_answers(NotThisPart(None))
    Given(message(1)).when(start).then(*NOTHING).and_answers(NotThisPart(None))


def test_a_part_that_was_sent_is_recorded_under_the_messages_key() -> None:
    done = Given(*answered(2), STARTED).when(sent)
    done.then(
        e.MessageSent(run="r1", part=0, ref=ref(900), sent=sealed("sent"), cor="r1")
    ).and_answers(PartSettled(1))
    assert [k for _, k in done.triggered] == [ref(900)]
    assert done.state.delivery is not None
    assert (done.state.delivery.next_part, done.state.delivery.in_flight) == (1, None)
    assert done.state.sent == (ref(900),)


def test_the_last_part_ends_the_turn() -> None:
    done = Given(*answered(), (2, message(2)), STARTED).when(sent).and_answers(PartSettled(None))
    assert done.state.delivery is None
    assert done.user.due_at(POLICY) == at(7)


def test_a_part_is_recorded_as_sent_once() -> None:
    past = (*answered(2), STARTED, part_sent("r1"))
    Given(*past).when(sent).then(*NOTHING).and_answers(NotThisPart(1))
    Given(*past).when(lambda u: sent(u, 1)).then(*NOTHING).and_answers(NotThisPart(1))


def test_recovery_may_adopt_a_part_that_is_not_in_flight() -> None:
    failed = e.DeliveryFailed(run="r1", part=0, code="refused", retry_at=at(60))
    done = Given(*answered(), STARTED, failed).when(lambda u: sent(u, adopted="echo"))
    done.and_answers(PartSettled(None))
    event = done.triggered[0][0]
    assert isinstance(event, e.MessageSent)
    assert event.adopted == "echo"


def test_a_deferred_part_is_tried_again_not_before_its_time() -> None:
    done = Given(*answered(), STARTED).when(
        lambda u: u.delivery_failed("r1", 0, "rate_limited", attempt=1, now=at(12), retry_at=at(20))
    )
    failed = e.DeliveryFailed(run="r1", part=0, code="rate_limited", retry_at=at(20), cor="r1")
    done.then(failed).and_answers(PartPutBack(at(20)))
    waiting = Given(*answered(), STARTED, failed)
    waiting.when(start).then(*NOTHING).and_answers(NotYet(at(20)))
    waiting.when(
        lambda u: u.delivery_started("r1", 0, deadline=at(40), incarnation="1", now=at(20))
    ).and_answers(PartStarted(0, 2))


def test_a_refused_part_is_given_up_and_the_next_one_follows() -> None:
    done = Given(*answered(2), STARTED).when(
        lambda u: u.delivery_failed("r1", 0, "refused", attempt=1, now=at(12))
    )
    done.then(e.DeliveryFailed(run="r1", part=0, code="refused", cor="r1"))
    done.and_answers(PartSettled(1))
    assert done.state.delivery is not None
    assert done.state.delivery.attempt == 0


def test_what_nobody_knows_is_recorded_as_uncertain_and_not_sent_again() -> None:
    done = Given(*answered(), STARTED).when(
        lambda u: u.delivery_uncertain("r1", 0, attempt=1, now=at(50))
    )
    done.then(e.DeliveryUncertain(run="r1", part=0, cor="r1")).and_answers(PartSettled(None))
    assert done.state.delivery is None


def test_a_part_that_is_not_in_flight_neither_fails_nor_is_uncertain() -> None:
    given = Given(*answered())
    refused = NotThisPart(0)
    given.when(lambda u: u.delivery_failed("r1", 0, "x", attempt=1, now=at(12))).and_answers(
        refused
    )
    given.when(lambda u: u.delivery_uncertain("r1", 0, attempt=1, now=at(12))).and_answers(refused)
    given.when(sent).then(*NOTHING).and_answers(refused)


def test_events_of_a_delivery_that_is_closed_change_nothing_but_what_was_sent() -> None:
    closed = Given(*answered(), part_sent("r1")).state
    late = (
        STARTED,
        e.DeliveryFailed(run="r1", part=0, code="x", retry_at=at(9)),
        e.DeliveryUncertain(run="r1", part=0),
    )
    assert Given(*answered(), part_sent("r1"), *late).state == closed


# -- one holder ----------------------------------------------------------------------------------


def test_only_the_incarnation_that_holds_a_delivery_starts_a_part() -> None:
    other = Given(*answered()).when(
        lambda u: u.delivery_started("r1", 0, deadline=at(30), incarnation="2", now=at(10))
    )
    other.then(*NOTHING).and_answers(HeldByAnother("r1", "1"))


def test_a_delivery_is_taken_over_from_the_dead_and_its_predecessor_starts_nothing_more() -> None:
    taken = e.TurnTakenOver(run="r1", node="b", incarnation="2", before="1", cor="r1", cau=3)
    done = Given(*answered()).when(
        lambda u: u.take_over("r1", "1", node="b", incarnation="2", now=at(9))
    )
    done.then(taken).and_answers(Held("r1"))
    given = Given(*answered(), taken)
    given.when(start).then(*NOTHING).and_answers(HeldByAnother("r1", "2"))
    given.when(
        lambda u: u.delivery_started("r1", 0, deadline=at(30), incarnation="2", now=at(10))
    ).and_answers(PartStarted(0, 1))


def test_what_became_of_an_earlier_start_says_nothing_of_the_one_in_flight() -> None:
    again = e.DeliveryFailed(run="r1", part=0, code="not_in_list", retry_at=at(40))
    second = e.DeliveryStarted(run="r1", part=0, deadline=at(60), attempt=2)
    given = Given(*answered(), STARTED, again, second)
    late = given.when(lambda u: u.delivery_failed("r1", 0, "late", attempt=1, now=at(41)))
    late.then(*NOTHING).and_answers(NotThisPart(0))
    unsure = given.when(lambda u: u.delivery_uncertain("r1", 0, attempt=1, now=at(41)))
    unsure.then(*NOTHING).and_answers(NotThisPart(0))
