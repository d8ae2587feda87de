"""Nodes go over to the next release one by one, under traffic, and nobody notices (H3)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from app.aggregates import events as e
from tests.faults.nodes import builds
from tests.faults.nodes.builds import NEWER, OLDER, EditNoticed
from tests.faults.nodes.fleet import Fleet, Node
from tests.faults.turns.crowd import traffic
from tests.integration.turns.judging import Story
from tests.integration.turns.outside import Outside
from tests.integration.turns.test_on_postgres import hilo
from tests.postgres import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

EVA = "15550102001"
OTHERS = [f"155501021{n:02}" for n in range(12)]


class Upgrade:
    """A fleet on one build, and the build that it goes over to."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.fleet = fleet
        self.outside = fleet.outside
        self.newer = builds.newer(directory / NEWER)
        older = builds.older(directory / OLDER)
        for node in fleet.nodes:
            node.code = older
            node.newer = (EditNoticed,)

    async def prepare(self) -> None:
        """Let the owner run the newer build's migrations, on a machine of their own."""
        owner = self.fleet.nodes[0]
        before, owner.code = owner.code, self.newer
        variables = {
            "HILO_DATABASE_URL": self.fleet.database.log_url,
            "HILO_KEYS_DATABASE_URL": self.fleet.database.keys_url,
            "HILO_OWNER_DATABASE_URL": self.fleet.database.owner,
        }
        done = await asyncio.to_thread(hilo, owner, "store", "prepare", **variables)
        owner.code = before
        assert done.code == 0, done.err

    async def restart(self, node: Node) -> None:
        """Start a node that has ended, on the newer build, and share webhooks out to all."""
        node.code = self.newer
        await node.start()
        await self.outside.webhook("", nodes=[one.url for one in self.fleet.nodes])

    async def releases(self, node: Node) -> Counter[str]:
        """How many living nodes there are of each release, as a node's build sees them."""
        return Counter(row["release"] for row in await self.shown(node) if row["alive"])

    async def shown(self, node: Node) -> list[dict[str, Any]]:
        """What a node's build says about the nodes, dead ones included."""
        told = (await asyncio.to_thread(hilo, node, "nodes", "--json")).json["nodes"]
        assert isinstance(told, list)
        return told


async def is_served_by(upgrade: Upgrade, newer: Node, older: Node) -> None:
    """Let Eva do what only a newer node understands, and write to an older one from then on."""
    outside = upgrade.outside
    await outside.webhook("", nodes=[newer.url])
    said = await outside.say(EVA)
    await outside.edit(said, "mejor dicho")
    await outside.reads(EVA)
    await outside.delivered()
    await outside.webhook("", nodes=[older.url])
    await outside.say(EVA, "sigues ahí")
    await outside.reads(EVA, 2)
    (noticed,) = [t for t in older.story().all(EditNoticed) if t.stream in streams_of(older, EVA)]
    pseudonym = noticed.stream.removeprefix("user/")
    told = f"UNKNOWN_EVENT_TYPE stream='{noticed.stream}' type='EditNoticed'"
    await older.until(lambda: any(told in line for line in older.technical_log(1000)))
    assert hilo(older, "users", "show", pseudonym, "--json").json["read_only"] is True
    assert hilo(newer, "users", "show", pseudonym, "--json").json["read_only"] is False
    runs = started(older.story(), noticed.position)
    at_work = {run.node for stream, run in runs if stream == noticed.stream}
    assert at_work == {newer.data.parent.name}


def streams_of(node: Node, phone: str) -> list[str]:
    """The stream of a phone, as the command line finds it."""
    found = hilo(node, "users", "show", phone, "--json").json
    return [f"user/{found['user']}"]


def started(story: Story, after: int) -> list[tuple[str, e.RunStarted]]:
    """The runs that were claimed after a position, and whose they are."""
    runs = [(t.stream, t.event) for t in story.all(e.RunStarted) if t.position > after]
    return [(stream, run) for stream, run in runs if isinstance(run, e.RunStarted)]


async def test_nodes_go_over_to_the_next_release_one_by_one_and_nobody_notices(
    outside: Outside, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    rng = random.Random(5)
    fleet = Fleet(outside, tmp_path, own_postgres)
    upgrade = Upgrade(fleet, tmp_path)
    first, second, third = fleet.nodes
    try:
        await fleet.start()
        await outside.pace(60)
        await asyncio.gather(traffic(outside, rng), upgrade.prepare())
        assert await upgrade.releases(first) == {OLDER: 3}

        stopping = asyncio.ensure_future(first.stop())
        await traffic(outside, rng)
        assert await stopping == 0, first.said.decode()
        assert {row["node"] for row in await upgrade.shown(second)} == {"node-2", "node-3"}
        await upgrade.restart(first)
        mixed = first.story().recorded[-1].position
        for node in (first, second):
            assert await upgrade.releases(node) == {OLDER: 2, NEWER: 1}
        for phone in OTHERS:
            await outside.say(phone)
        await is_served_by(upgrade, first, second)
        await outside.webhook("", nodes=[node.url for node in fleet.nodes])

        await traffic(outside, rng)
        await second.goes()
        await traffic(outside, rng)
        await upgrade.restart(second)
        stopping = asyncio.ensure_future(third.stop())
        await traffic(outside, rng)
        assert await stopping == 0, third.said.decode()
        at_work = {run.node for _, run in started(first.story(), mixed)}
        assert at_work > {"node-1"}, "older nodes took no turn while the newer one was there"
        await upgrade.restart(third)
        await outside.say(EVA, "y ahora")
        await fleet.agree_on_who_lives()
        assert await upgrade.releases(third) == {NEWER: 3}
        await fleet.check_promises()
    finally:
        await fleet.close()
