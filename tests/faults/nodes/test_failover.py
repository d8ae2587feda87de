"""A failover to a standby that was behind: what it never had is lost, and nothing else.

The nodes find out by themselves, say so, drop what they knew of the other past, and go on.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.demo.evidence import dump_views
from tests.faults.nodes.fleet import Fleet, Node
from tests.faults.turns.crowd import traffic
from tests.integration.turns.judging import Evidence, disorder, open_work, unanswered
from tests.integration.turns.outside import PATIENCE, Outside
from tests.postgres import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ANA, EVA = "15550109001", "15550109002"


async def readiness(node: Node) -> Any:  # noqa: ANN401 - a document
    async with httpx2.AsyncClient(timeout=PATIENCE) as client:
        return (await client.get(f"{node.url}/readyz")).json()


async def until_it_says(node: Node, reason: str) -> Any:  # noqa: ANN401
    """Return what a node says of itself as soon as it names a reason ("": it is ready)."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        told = await readiness(node)
        if reason in told["reason"] and (told["status"] == "ready") == (not reason):
            return told
        assert asyncio.get_running_loop().time() < deadline, told
        await node.outside.watch(EVA, 0.1)


async def until_whole(node: Node) -> None:
    """Return when everything that was asked is answered once, and the log is in order."""
    outside = node.outside
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        openai, whapi = await outside.openai_account(), await outside.whapi_account()
        story = node.story()
        evidence = Evidence(outside.asked, openai, whapi, story)
        # Answers from before that were lost are on the phones, and nobody asks for them here.
        found = [fault for fault in unanswered(evidence) if "not theirs" not in fault]
        found += [*disorder(story), *open_work(story)]
        if not found:
            return
        assert asyncio.get_running_loop().time() < deadline, found
        await outside.watch(EVA, 0.1)


async def test_nodes_that_knew_what_a_failover_lost_say_so_and_go_on_by_themselves(
    outside: Outside, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    rng = random.Random(7)
    fleet = Fleet(outside, tmp_path, own_postgres, clocks=(0, 0))
    one, two = fleet.nodes
    try:
        await fleet.start()
        await outside.pace(60)
        await traffic(outside, rng)
        await one.settled()
        await asyncio.to_thread(own_postgres.stop)
        kept = own_postgres.keep_data("behind-the-nodes")
        await asyncio.to_thread(own_postgres.start)
        for node in fleet.nodes:
            await until_it_says(node, "")
        await outside.say(ANA)
        await traffic(outside, rng)
        await one.settled()
        lost = one.story().recorded[-1].position
        before = [node.pid for node in fleet.nodes]

        await asyncio.to_thread(own_postgres.stop)
        own_postgres.put_back(kept)
        await asyncio.to_thread(own_postgres.start)
        for node in fleet.nodes:
            told = await until_it_says(node, "the log went back behind position")
            assert "Make sure that this is the right server" in told["reason"]
            assert "opened anew by itself" in told["reason"]
        outside.asked.clear()  # of those before, the log knows no more than it ever will
        for phone in (ANA, EVA):
            await outside.say(phone)
        for node in fleet.nodes:
            assert (await until_it_says(node, ""))["position"] < lost
        await traffic(outside, rng)
        await outside.delivered()
        await until_whole(one)
        await fleet.follows()
        await fleet.agree_on_who_lives()
        assert dump_views(one.views) == dump_views(two.views)
        assert [node.pid for node in fleet.nodes] == before, "nobody was started again"
        assert await asyncio.gather(*(node.stop() for node in fleet.nodes)) == [0, 0]
    finally:
        await fleet.close()
