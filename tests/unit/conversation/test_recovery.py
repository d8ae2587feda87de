"""Orphans are found, whatever else is wrong; what lives is left alone."""

from __future__ import annotations

from typing import cast

import pytest

from app.aggregates import open_work as w
from app.aggregates.user import User
from app.aggregates.user_state import BLANK, UserState
from app.conversation.dispatcher import Dispatcher
from app.conversation.recovery import Recovery
from app.conversation.repository import Repository
from app.conversation.todo import TodoList
from app.conversation.turn import Turns
from eventstore.errors import CorruptEvent
from eventstore.types import Micros, StreamName

NOW = Micros(1_800_000_000_000_000)
ANA, BEN, EVA = (StreamName(f"user/{name}") for name in ("ana", "ben", "eva"))
RUN = w.Run("r", "node", "incarnation", 1, 1, 2, 3)
WITH_RUN = UserState(run=RUN)
WAITING = UserState(pending=(w.Pending(b"r", 1, NOW, 1),))


class World:
    """Everything that recovery asks, in one small place."""

    def __init__(self, states: dict[StreamName, UserState]) -> None:
        self.states = states
        self.unreadable: set[StreamName] = set()
        self.held: set[StreamName] = set()
        self.running: set[StreamName] = set()
        self.due: dict[StreamName, int | None] = {}
        self.recovery = Recovery(
            todo=cast("TodoList", self),
            users=cast("Repository[User, UserState]", self),
            turns=cast("Turns", self),
            dispatcher=cast("Dispatcher", self),
            now=lambda: NOW,
        )

    # the to-do list
    def streams(self) -> list[StreamName]:
        return list(self.states)

    def changed(self, stream: StreamName, state: UserState) -> None:
        self.put(stream, self.due_at(state))

    # the users
    async def look(self, stream: StreamName) -> User:
        if stream in self.unreadable:
            raise CorruptEvent(stream, "truncated")
        return User(stream, self.states[stream])

    # turns and dispatcher
    def due_at(self, state: UserState) -> int | None:
        return state.pending[0].at if state.pending and state.run is None else None

    def is_held(self, state: UserState) -> bool:
        return any(self.states[stream] is state for stream in self.held)

    def is_running(self, stream: StreamName) -> bool:
        return stream in self.running

    def put(self, stream: StreamName, due_at: int | None) -> None:
        self.due[stream] = due_at


async def test_a_run_that_nobody_holds_is_visited_at_once() -> None:
    world = World({ANA: WITH_RUN})
    await world.recovery.look()
    assert world.due == {ANA: NOW}
    assert world.recovery.found == 1


async def test_a_run_that_somebody_holds_is_left_alone() -> None:
    held = UserState(run=RUN, attempts=1)
    world = World({ANA: held})
    world.held.add(ANA)
    await world.recovery.look()
    assert world.due == {ANA: None}
    assert world.recovery.found == 0


async def test_a_run_that_this_process_is_at_is_left_alone() -> None:
    world = World({ANA: WITH_RUN})
    world.running.add(ANA)
    await world.recovery.look()
    assert world.due == {}


@pytest.mark.parametrize("delivery", [w.Delivery("r", 1, 1, NOW, "dead", "gone")])
async def test_a_delivery_that_nobody_holds_is_visited_at_once(delivery: w.Delivery) -> None:
    world = World({ANA: UserState(delivery=delivery)})
    await world.recovery.look()
    assert world.due == {ANA: NOW}


async def test_one_stream_that_cannot_be_read_does_not_hide_the_others() -> None:
    world = World({ANA: BLANK, BEN: WITH_RUN, EVA: WITH_RUN})
    world.unreadable.add(ANA)
    await world.recovery.look()
    assert world.due == {BEN: NOW, EVA: NOW}


async def test_a_due_time_that_was_lost_is_said_again() -> None:
    world = World({ANA: WAITING})
    await world.recovery.look()
    assert world.due == {ANA: NOW}
    assert world.recovery.found == 0, "it is no orphan"
