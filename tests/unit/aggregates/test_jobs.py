"""A slot is claimed once, taken over from the dead, and given up when it kills."""

from __future__ import annotations

from app.aggregates import job_events as e
from app.aggregates.answers import Done
from app.aggregates.jobs import (
    _EVOLVE,
    ATTEMPTS,
    BLANK,
    Job,
    JobState,
    SlotBusy,
    SlotClaim,
    SlotClaimed,
    SlotGivenUp,
    SlotLost,
    SlotTaken,
    evolve,
    pack,
    unpack,
)
from eventstore.codec import Event
from eventstore.types import Micros, StreamName, Version

STREAM = StreamName("jobs/bot_keys")
NOON, NEXT = 1_000, 2_000


def job(*past: Event, read_only: bool = False) -> Job:
    state = BLANK
    for version, event in enumerate(past, start=1):
        state = evolve(state, event, version, 10 * version)
    return Job(STREAM, state, Version(len(past)), read_only=read_only)


def claim(one: Job, slot: int = NOON, incarnation: str = "a1", dead: str = "") -> SlotClaim:
    return one.claim(slot, node="a", incarnation=incarnation, dead=dead, now=Micros(5))


def events(one: Job) -> list[Event]:
    return [event for event, _ in one.collect_events()]


STARTED = e.JobStarted(slot=NOON, node="a", incarnation="a1")


def test_every_event_has_its_effect() -> None:
    assert set(_EVOLVE) == set(e.JOB_EVENTS)


def test_a_slot_is_claimed_once() -> None:
    one = job()
    assert claim(one) == SlotClaimed(NOON, 1)
    assert events(one) == [STARTED]
    assert claim(job(STARTED), incarnation="b1") == SlotBusy("a", "a1")
    over = job(STARTED, e.JobEnded(slot=NOON))
    assert claim(over, incarnation="b1") == SlotTaken(NOON)
    assert claim(over, NEXT) == SlotClaimed(NEXT, 1)


def test_who_holds_the_slot_says_how_it_ended_and_nobody_else() -> None:
    one = job(STARTED)
    assert one.end(NOON, "b1", "x", now=Micros(7)) == SlotLost(NOON)
    assert one.fail(NEXT, "a1", "x", now=Micros(7)) == SlotLost(NEXT)
    assert one.end(NOON, "a1", "2 keys", now=Micros(7)) == Done(2)
    assert events(one) == [e.JobEnded(slot=NOON, result="2 keys")]
    assert (one.state.outcome, one.state.says, one.state.running) == ("done", "2 keys", None)


def test_a_job_that_fails_waits_for_its_next_slot() -> None:
    one = job(STARTED, e.JobFailed(slot=NOON, code="KeyError"))
    assert (one.state.outcome, one.state.says) == ("failed", "KeyError")
    assert claim(one) == SlotTaken(NOON)


def test_the_dead_one_s_slot_is_taken_over_and_counted() -> None:
    one = job(STARTED)
    assert claim(one, incarnation="b1", dead="a1") == SlotClaimed(NOON, 2)
    assert one.end(NOON, "a1", "late", now=Micros(9)) == SlotLost(NOON)
    later = job(STARTED)
    assert claim(later, NEXT, "b1", dead="a1") == SlotClaimed(NEXT, 2), "it stands for both"


def test_a_job_that_kills_whoever_runs_it_is_given_up_until_its_next_slot() -> None:
    last = e.JobStarted(slot=NOON, node="c", incarnation="c1", attempt=ATTEMPTS)
    one = job(last)
    assert claim(one, NOON, "d1", dead="c1") == SlotGivenUp(NOON, ATTEMPTS)
    assert one.state.running is None
    assert claim(one, NOON, "d1") == SlotTaken(NOON)
    assert claim(one, NEXT, "d1") == SlotClaimed(NEXT, 1)


def test_a_request_stands_until_a_slot_as_late_is_claimed() -> None:
    one = job(e.JobRequested(by="ana"))
    assert one.state.requested == 10
    assert claim(one, 5) == SlotClaimed(5, 1)
    assert one.state.requested == 10
    assert claim(job(e.JobRequested(by="ana")), 10) == SlotClaimed(10, 1)
    assert job(e.JobRequested(by="ana"), STARTED).state.requested == 0


def test_a_state_survives_a_snapshot() -> None:
    state = job(STARTED).state
    assert unpack(pack(state)) == state
    assert isinstance(state, JobState)
