"""What is open gets its time again, whatever else is wrong; what was put off is visited."""

from __future__ import annotations

import asyncio
from typing import cast

from app.aggregates import open_work as w
from app.aggregates.user import User
from app.aggregates.user_state import BLANK, UserState
from app.conversation import recovery as module
from app.conversation.dispatcher import Dispatcher
from app.conversation.nodes import Nodes
from app.conversation.recovery import Recovery
from app.conversation.repository import Repository
from app.conversation.todo import TodoList
from eventstore.errors import CorruptEvent
from eventstore.types import Micros, StreamName

NOW = Micros(1_800_000_000_000_000)
ANA, BEN, EVA = (StreamName(f"user/{name}") for name in ("ana", "ben", "eva"))
OURS = UserState(run=w.Run("r", "node", "ours", 1, 1, 2, 3))
THEIRS = UserState(run=w.Run("r", "node", "theirs", 1, 1, 2, 3))
WAITING = UserState(pending=(w.Pending(b"r", 1, NOW, 1),))


class World:
    """Everything that recovery asks, in one small place."""

    def __init__(self, states: dict[StreamName, UserState]) -> None:
        self.states = states
        self.unreadable: set[StreamName] = set()
        self.running: set[StreamName] = set()
        self.told: list[StreamName] = []
        self.due: dict[StreamName, int | None] = {}
        self.recovery = Recovery(
            todo=cast("TodoList", self),
            users=cast("Repository[User, UserState]", self),
            nodes=cast("Nodes", self),
            dispatcher=cast("Dispatcher", self),
            now=lambda: NOW,
        )

    # the to-do list
    def streams(self) -> list[StreamName]:
        return list(self.states)

    def changed(self, stream: StreamName, _: UserState) -> None:
        self.told.append(stream)

    # the users
    async def look(self, stream: StreamName) -> User:
        if stream in self.unreadable:
            raise CorruptEvent(stream, "truncated")
        return User(stream, self.states[stream])

    # nodes and dispatcher
    def is_mine(self, _: str, incarnation: str) -> bool:
        return incarnation == "ours"

    def is_running(self, stream: StreamName) -> bool:
        return stream in self.running

    def put(self, stream: StreamName, due_at: int | None) -> None:
        self.due[stream] = due_at


async def test_a_run_of_ours_that_was_put_off_is_visited_at_once() -> None:
    world = World({ANA: OURS})
    await world.recovery.look()
    assert world.due == {ANA: NOW}
    assert world.recovery.found == 1


async def test_a_run_of_others_has_its_place_in_the_order_of_the_nodes() -> None:
    world = World({ANA: THEIRS})
    await world.recovery.look()
    assert world.told == [ANA]
    assert world.due == {}


async def test_a_run_that_this_process_is_at_is_left_alone() -> None:
    world = World({ANA: OURS})
    world.running.add(ANA)
    await world.recovery.look()
    assert (world.due, world.told) == ({}, [])


async def test_one_stream_that_cannot_be_read_does_not_hide_the_others() -> None:
    world = World({ANA: BLANK, BEN: OURS, EVA: OURS})
    world.unreadable.add(ANA)
    await world.recovery.look()
    assert world.due == {BEN: NOW, EVA: NOW}


async def test_a_due_time_that_was_lost_is_said_again() -> None:
    world = World({ANA: WAITING})
    await world.recovery.look()
    assert world.told == [ANA]
    assert world.recovery.found == 0, "it is no orphan"


async def test_a_change_during_a_look_leads_to_one_more_and_no_third() -> None:
    world = World({ANA: WAITING})
    for _ in range(5):
        world.recovery.look_soon()
    await asyncio.sleep(0)
    for _ in range(5):
        world.recovery.look_soon()
    assert world.recovery._looking is not None
    await world.recovery._looking
    assert world.told == [ANA, ANA]
    await world.recovery.close()


async def test_a_long_list_leaves_traffic_its_turn() -> None:
    states = {StreamName(f"user/{n}"): WAITING for n in range(3 * module.AT_A_TIME)}
    world = World(states)
    world.recovery.look_soon()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 0 < len(world.told) < len(states)
    await world.recovery.close()
