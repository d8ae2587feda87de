"""Two nodes on one PostgreSQL: what one was at when it died, or was stopped, the other ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from app.aggregates import events as e
from app.conversation.rendezvous import rank
from eventstore.codec import Event
from eventstore.postgres import PostgresLog
from tests.integration.turns.judging import Evidence, Story, faults
from tests.integration.turns.outside import PATIENCE, Outside
from tests.integration.turns.processes import Server, simulators
from tests.integration.turns.test_on_postgres import Databank, hilo
from tests.postgres import Databases

ANA, EVA = "34600111222", "34600111223"


class Pair:
    """Two nodes, and what can be seen of them from outside."""

    def __init__(self, outside: Outside, databank: Databank, folder: Path) -> None:
        self.outside = outside
        self.nodes = {
            name: Server(outside, folder / name, **databank.environment, HILO_NODE=name)
            for name in ("one", "two")
        }
        self._url = databank.environment["HILO_DATABASE_URL"]

    async def start(self) -> None:
        one, two = self.nodes.values()
        assert hilo(one, "store", "prepare").code == 0
        await one.start()
        await two.start()

    def story(self) -> Story:
        log = PostgresLog(self._url, schema="bot_default")
        try:
            return Story.of(log)
        finally:
            log.close()

    async def has(self, kind: type[Event], seconds: float = PATIENCE) -> Story:
        deadline = asyncio.get_running_loop().time() + seconds
        while not (story := self.story()).count(kind):
            assert asyncio.get_running_loop().time() < deadline, f"no {kind.__name__}"
            await asyncio.to_thread(signal.sigtimedwait, [], 0.05)
        return story

    async def in_the_middle_of_a_turn(self) -> tuple[Server, Server]:
        """Return the node that runs Ana's turn, and the other one, which gets the webhooks."""
        await self.outside.pace(1500)
        await self.outside.say(ANA)
        story = await self.has(e.RunSubmitted)
        (started,) = [one.event for one in story.all(e.RunStarted)]
        assert isinstance(started, e.RunStarted)
        holder = self.nodes[started.node]
        (other,) = [node for node in self.nodes.values() if node is not holder]
        await self.outside.webhook(f"{other.url}/webhooks/whapi", first_delay=0.05, max_delay=0.2)
        return holder, other

    def in_order_for(self, stream: str) -> tuple[Server, Server]:
        """Return the node that looks after a stream's due times, and the one that helps."""
        log = PostgresLog(self._url, schema="bot_default")
        try:
            beats = log.nodes()
        finally:
            log.close()
        incarnations = [beat.incarnation for beat in beats]
        order = {beat.node: rank(stream, beat.incarnation, incarnations) for beat in beats}
        first, second = sorted(self.nodes, key=order.__getitem__)
        return self.nodes[first], self.nodes[second]

    async def settled(self) -> Story:
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            outside, story = self.outside, self.story()
            openai, whapi = await outside.openai_account(), await outside.whapi_account()
            found = faults(Evidence(outside.asked, openai, whapi, story))
            if not found:
                return story
            assert asyncio.get_running_loop().time() < deadline, "\n".join(found)
            await asyncio.to_thread(signal.sigtimedwait, [], 0.1)


@pytest.fixture
async def pair(postgres: Databases, tmp_path: Path) -> AsyncIterator[Pair]:
    async with simulators() as outside:
        pair = Pair(outside, Databank(postgres), tmp_path)
        try:
            yield pair
        finally:
            for node in pair.nodes.values():
                await node.close()


async def test_what_a_killed_node_was_at_is_ended_by_the_other(pair: Pair) -> None:
    await pair.start()
    holder, other = await pair.in_the_middle_of_a_turn()
    await holder.kill()
    await pair.outside.reads(ANA)
    story = await pair.settled()
    (taken,) = story.all(e.TurnTakenOver)
    assert isinstance(taken.event, e.TurnTakenOver)
    assert pair.nodes[taken.event.node] is other
    shown = hilo(other, "nodes", "--json").json
    assert shown["alive"] == 1


async def test_a_node_whose_name_another_process_takes_stops_and_says_why(
    pair: Pair, tmp_path: Path
) -> None:
    await pair.start()
    first = pair.nodes["one"]
    settings = {name: value for name, value in first.environment.items() if "DATABASE" in name}
    kek = first.environment.get("HILO_KEK", "")
    second = Server(pair.outside, tmp_path / "again", **settings, HILO_NODE="one", HILO_KEK=kek)
    pair.nodes["again"] = second
    await second.start()
    assert await first.dies() == 3
    assert b"another process serves as node 'one'" in first.said


async def test_a_node_that_is_stopped_past_its_lease_and_goes_on_doubles_nothing(
    pair: Pair,
) -> None:
    await pair.start()
    holder, _ = await pair.in_the_middle_of_a_turn()
    assert holder._process is not None
    holder._process.send_signal(signal.SIGSTOP)
    try:
        await pair.has(e.TurnTakenOver)
        await pair.outside.reads(ANA)
    finally:
        holder._process.send_signal(signal.SIGCONT)
    await pair.outside.say(ANA, "sigues ahí")  # both live, and somebody answers
    await pair.outside.reads(ANA, 2)
    story = await pair.settled()
    assert story.count(e.RunCompleted) == 2
    assert hilo(holder, "nodes", "--json").json["alive"] == 2
    for node in pair.nodes.values():
        assert await node.stop() == 0


async def test_the_activity_that_a_killed_node_had_to_record_is_recorded_by_the_other_once(
    pair: Pair,
) -> None:
    for node in pair.nodes.values():
        node.set("HILO_ACTIVITY_SECONDS", "4")
    await pair.start()
    await pair.outside.report(600)
    await pair.outside.say(ANA)
    await pair.outside.reads(ANA)
    story = await pair.settled()
    assert story.count(e.ActivityRecorded) == 0
    (stream,) = story.states
    first, second = pair.in_order_for(stream)
    await first.kill()
    story = await pair.has(e.ActivityRecorded)
    await first.start()
    await pair.outside.say(EVA)
    await pair.outside.reads(EVA)
    await pair.settled()
    assert [await node.stop() for node in (first, second)] == [0, 0]
    recorded = [told.event for told in pair.story().all(e.ActivityRecorded)]
    tokens = [one.tokens for one in recorded if isinstance(one, e.ActivityRecorded)]
    assert len(tokens) == 2, "one for each of them"
    assert tokens[0] == 600


async def test_what_a_hook_changed_at_one_node_is_told_by_the_other(pair: Pair) -> None:
    await pair.start()
    one, two = pair.nodes.values()
    await pair.outside.say(ANA)
    await pair.outside.reads(ANA)
    (stream,) = (await pair.settled()).states
    url = f"{two.url}/v1/users/{stream.removeprefix('user/')}/client"
    async with httpx2.AsyncClient(timeout=PATIENCE) as client:
        assert (await client.get(url)).json()["name"] is None  # and is in memory from now on
        await pair.outside.phone(ANA, "profile", name="Ana de Prueba", labels=[])
        answer = await client.post(f"{one.url}/update-user", json={"userId": ANA})
        assert (answer.status_code, answer.json()["success"]) == (200, True)
        await pair.has(e.ProfileUpdated)
        async with asyncio.timeout(PATIENCE):
            while (await client.get(url)).json()["name"] != "Ana de Prueba":
                await asyncio.to_thread(signal.sigtimedwait, [], 0.05)
    assert pair.story().count(e.ProfileUpdated) == 1
