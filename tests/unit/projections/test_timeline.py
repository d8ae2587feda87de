"""A user's timeline: what belongs together, and where it ends."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from app.aggregates import events as e
from app.projections.timeline import chains, timeline
from eventstore.codec import Event
from eventstore.types import NewEvent, StreamName
from tests.unit.aggregates.scenario import (
    message,
    ref,
    run_completed,
    run_started,
    sealed,
)
from tests.unit.projections.histories import TestLog
from tests.unit.projections.lives import SCRIPTS, Script, World

ANA = StreamName("user/ana")


def told(history: TestLog, *events: Event) -> list[tuple[str, list[str]]]:
    """The chains that these events make: names, and types in order."""
    for event in events:
        history.append("ana", event)
    found = chains(timeline(history.log, ANA))
    return [(chain.id, [moment.type for moment in chain.moments]) for chain in found]


def test_a_turn_is_one_chain_from_its_messages_to_the_statuses_of_its_reply(
    history: TestLog,
) -> None:
    assert told(
        history,
        e.UserRegistered(gateway="whapi", chat=sealed()),
        message(1),
        e.TypingObserved(),
        message(2),
        e.MessageEdited(ref=ref(2), content=sealed()),
        run_started("r1", 5),
        e.ThreadStarted(thread="conv", reason="first_time"),
        message(3),
        run_completed("r1"),
        e.TokensIncremented(thread="conv", run="r1", total=5, cor="r1"),
        e.MessageSent(run="r1", part=0, ref=ref(900), sent=sealed(), cor="r1"),
        e.MessageStatusChanged(ref=ref(900), status="read"),
    ) == [
        ("v1", ["UserRegistered"]),
        (
            "r1",
            [
                *("MessageReceived", "TypingObserved", "MessageReceived", "MessageEdited"),
                *("RunStarted", "ThreadStarted", "RunCompleted", "TokensIncremented"),
                *("MessageSent", "MessageStatusChanged"),
            ],
        ),
        ("v8", ["MessageReceived"]),
    ]


def test_failed_runs_and_the_parking_that_ends_them_belong_to_the_turn(history: TestLog) -> None:
    assert told(
        history,
        message(1),
        run_started("r1", 1),
        e.RunFailed(run="r1", code="timeout", retry_at=1, cor="r1"),
        run_started("r2", 1, attempt=2),
        e.RunFailed(run="r2", code="timeout", cor="r2"),
        e.TurnParked(reason="failed", attempts=2, up_to=1, run="sorry", apology=sealed(), cor="r2"),
        e.MessageSent(run="sorry", part=0, ref=ref(901), sent=sealed(), cor="sorry"),
        e.TurnRetried(by="ops"),
        run_started("r3", 1),
        run_completed("r3"),
    ) == [
        (
            "r1",
            [
                *("MessageReceived", "RunStarted", "RunFailed", "RunStarted", "RunFailed"),
                *("TurnParked", "MessageSent", "TurnRetried", "RunStarted", "RunCompleted"),
            ],
        )
    ]


def test_a_clean_up_is_a_chain_of_its_run(history: TestLog) -> None:
    reset = e.ThreadReset(thread="conv", reason="cleanup", left_behind=9, cor="cleanup1")
    assert told(history, reset) == [("cleanup1", ["ThreadReset"])]


def test_a_message_joins_the_delete_that_came_before_it(history: TestLog) -> None:
    found = told(history, e.MessageDeleted(ref=ref(1), early=True), message(1))
    assert found == [("v1", ["MessageDeleted", "MessageReceived"])]


def test_causes_are_named_and_personal_data_stays_sealed(history: TestLog) -> None:
    told(history, message(1), e.MessageEdited(ref=ref(1), content=sealed(), at=77))
    first, second = timeline(history.log, ANA)
    assert (first.caused_by, second.caused_by, second.sender_at) == (None, 1, 77)
    assert first.facts == {"ref": ref(1), "kind": "text", "answerable": True}
    assert set(second.sealed) == {"content"}


def test_it_ends_where_the_past_is_asked_for(history: TestLog) -> None:
    told(history, message(1), message(2), message(3))
    (_, second, _) = timeline(history.log, ANA)
    assert [m.version for m in timeline(history.log, ANA, up_to=second.position)] == [1, 2]


def test_an_event_of_a_newer_release_is_there_without_facts(history: TestLog) -> None:
    history.append_raw("ana", NewEvent("SomethingNew", b"\x80"))
    (moment,) = timeline(history.log, ANA)
    assert (moment.type, moment.facts, moment.chain) == ("SomethingNew", {}, "v1")


def test_nobody_has_no_timeline(history: TestLog) -> None:
    assert timeline(history.log, StreamName("user/nobody")) == []


@given(script=SCRIPTS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_event_is_told_once_and_every_run_in_one_chain(
    tmp_path_factory: pytest.TempPathFactory, script: Script
) -> None:
    history = TestLog(tmp_path_factory.mktemp("lives") / "log.db")
    World(history).play([("ana", command, number) for _, command, number in script])
    moments = timeline(history.log, ANA)
    assert [m.version for m in moments] == list(range(1, len(moments) + 1))
    of_run: dict[str, set[str]] = {}
    for moment in moments:
        if "run" in moment.facts and moment.type != "TurnParked":
            of_run.setdefault(str(moment.facts["run"]), set()).add(moment.chain)
    assert all(len(names) == 1 for names in of_run.values())
    history.close()
