"""A node that meets a newer release's events records facts and decides nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from eventsourcing.domain import CollectEventsProtocol

from app.aggregates import ReadOnlyUser, User
from tests.unit.aggregates.scenario import (
    POLICY,
    SPENT,
    STREAM,
    Given,
    at,
    key,
    message,
    part_started,
    ref,
    registered,
    run_completed,
    run_started,
    sealed,
)

FACTS: dict[str, Callable[[User], object]] = {
    "register": lambda u: u.register("whapi", sealed(), now=at(0)),
    "profile": lambda u: u.update_profile(sealed(), now=at(0)),
    "message": lambda u: u.receive_message(ref(7), "text", sealed(), now=at(0)),
    "edit": lambda u: u.edit_message(ref(1), sealed(), key=key("e"), now=at(0)),
    "delete": lambda u: u.delete_message(ref(1), key=key("d"), now=at(0)),
    "human": lambda u: u.human_wrote(ref(8), sealed(), now=at(0)),
    "echo": lambda u: u.echo_observed(ref(9), sealed(), key=key("o"), now=at(0)),
    "status": lambda u: u.status_changed(ref(9), "read", key=key("s"), now=at(0)),
}
OUTCOMES: dict[str, Callable[[User], object]] = {
    "sent": lambda u: u.message_sent("r1", 0, ref=ref(9), sent=sealed(), key=ref(9), now=at(0)),
    "failed": lambda u: u.delivery_failed("r1", 0, "x", attempt=1, now=at(0)),
    "uncertain": lambda u: u.delivery_uncertain("r1", 0, attempt=1, now=at(0)),
}
DECISIONS: dict[str, Callable[[User], object]] = {
    "claim": lambda u: u.claim("r", node="a", incarnation="1", now=at(9), policy=POLICY),
    "take over": lambda u: u.take_over("r1", "1", node="b", incarnation="2", now=at(9)),
    "submitted": lambda u: u.run_submitted("r1", "resp", now=at(9)),
    "completed": lambda u: u.run_completed(
        "r1", "resp", reply=sealed(), parts=1, billed=SPENT, now=at(9)
    ),
    "run failed": lambda u: u.run_failed("r1", "x", billed="nothing", now=at(9)),
    "cancelled": lambda u: u.run_cancelled("r1", "orphaned", billed="nothing", now=at(9)),
    "delivery": lambda u: u.delivery_started("r1", 0, deadline=at(9), incarnation="1", now=at(9)),
    "start": lambda u: u.start_thread("conv_1", now=at(9)),
    "reset": lambda u: u.reset_thread("manual", thread="conv_1", now=at(9)),
    "empty": lambda u: u.empty_thread(thread="conv_1", now=at(9)),
    "clean up": lambda u: u.clean_up(limit=1, now=at(9)),
    "activity": lambda u: u.record_activity(now=at(9)),
    "retry": lambda u: u.turn_retried("ana", now=at(9)),
    "drop": lambda u: u.turn_dropped("ana", now=at(9)),
}


@pytest.mark.parametrize("name", FACTS)
def test_facts_are_recorded(name: str) -> None:
    assert len(Given(read_only=True).when(FACTS[name]).triggered) == 1


@pytest.mark.parametrize("name", OUTCOMES)
def test_what_became_of_a_send_is_recorded(name: str) -> None:
    past = (message(1), run_started("r1", 1), run_completed("r1"), part_started("r1"))
    assert len(Given(*past, read_only=True).when(OUTCOMES[name]).triggered) == 1


@pytest.mark.parametrize("name", DECISIONS)
def test_nothing_else_is_decided(name: str) -> None:
    given = Given(registered(), message(1), read_only=True)
    with pytest.raises(ReadOnlyUser, match=STREAM):
        given.when(DECISIONS[name])
    assert given.user.collect_events() == []


def test_a_user_is_an_aggregate_of_the_library() -> None:
    user = User(STREAM)
    collects: object = user  # its events are pairs: stream and version are the mapper's to add
    assert isinstance(collects, CollectEventsProtocol)
    assert (user.id, user.version) == (STREAM, 0)
    user.register("whapi", sealed(), now=at(0))
    assert user.version == 1
    assert len(user.collect_events()) == 1
    assert user.collect_events() == []
