"""Nodes die at each named point while others live: what they held is gone on with, once."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.aggregates import events as e
from app.conversation.crash import POINTS
from tests.faults.nodes.fleet import Fleet, Node
from tests.integration.turns.outside import PATIENCE, RESPONSES, Outside, Said
from tests.postgres import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

FAILING = ("after_run_failed", "after_turn_parked")
"""Points that are reached when OpenAI refuses."""

RECOVERING = ("during_recovery", "during_recovery")
"""Reached by whoever takes over."""

IN_PASSING = [point for point in POINTS if point not in {*FAILING, *RECOVERING}]
PAIRS = list(zip(IN_PASSING[::2], IN_PASSING[1::2], strict=True))


class Doomed:
    """A fleet of which two nodes are to die, and the third is not."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.outside = fleet.outside
        *self.victims, self.survivor = fleet.nodes
        self._phones: Iterator[int] = itertools.count(15_550_300_000)

    async def arm(self, points: tuple[str, ...]) -> None:
        """Start each victim again with a point at which it dies."""
        await asyncio.gather(*(node.goes() for node in self.victims))
        await asyncio.gather(
            *(node.start(point) for node, point in zip(self.victims, points, strict=True))
        )

    async def some_write(self) -> list[Said]:
        """Let people who never wrote before say something."""
        return [await self.outside.say(str(next(self._phones))) for _ in range(4)]

    async def write_until_dead(self, points: tuple[str, ...], *, least: int) -> list[Said]:
        """Let people write until so many victims are dead; return what was said."""
        said: list[Said] = []
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while sum(node.has_died for node in self.victims) < least:
            alive = [p for n, p in zip(self.victims, points, strict=True) if not n.has_died]
            assert asyncio.get_running_loop().time() < deadline, f"{alive} never reached"
            said += await self.some_write()
            await self.outside.watch(said[-1].phone, 0.4)
        await self.bury()
        return said

    async def bury(self) -> int:
        """Count the victims that died, each by SIGKILL, since the last time."""
        dead = [node for node in self.victims if node.has_died]
        for node in dead:
            await node.goes()
        return len(dead)


async def dies_at(doomed: Doomed, pair: tuple[str, ...]) -> None:
    await doomed.arm(pair)
    await doomed.write_until_dead(pair, least=2)


async def dies_when_openai_refuses(doomed: Doomed) -> None:
    await doomed.arm(FAILING)
    await doomed.survivor.settled()  # whoever still waits would get an apology, too
    await doomed.outside.break_openai(RESPONSES, "status", times=0, status=401)
    for message in await doomed.write_until_dead(FAILING, least=2):
        doomed.outside.expect(message, "silence")
        # With an apology, whoever is left says it.
        await doomed.outside.reads(message.phone)
    await doomed.outside.mend()


async def dies_in_the_place_of_the_dead(doomed: Doomed) -> None:
    await doomed.arm(RECOVERING)
    await doomed.outside.pace(1000)
    for _ in range(5):  # the third may have held nothing
        for _ in range(2):
            await doomed.some_write()
        await doomed.outside.openai_waits("active=6")
        await doomed.survivor.kill()
        await doomed.fleet.lease_passes()
        dead = await doomed.bury()
        await doomed.survivor.start()
        if dead:
            break
    assert dead, "nobody recovered anything"
    await doomed.outside.pace(60)


async def comes_back(node: Node) -> None:
    await node.goes()  # it may live, and is armed still
    await node.start()


async def test_deaths_at_every_named_point_lose_nothing_and_answer_nothing_twice(
    outside: Outside, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    doomed = Doomed(Fleet(outside, tmp_path, own_postgres))
    fleet = doomed.fleet
    try:
        await fleet.start()
        await outside.pace(60)
        for pair in PAIRS:
            await dies_at(doomed, pair)
        await dies_when_openai_refuses(doomed)
        await dies_in_the_place_of_the_dead(doomed)
        await asyncio.gather(*map(comes_back, doomed.victims))
        await fleet.check_promises()
        story = fleet.nodes[0].story()
        assert story.count(e.TurnTakenOver) >= len(PAIRS)
        assert story.count(e.DeliveryUncertain) == 0
        assert (
            0
            < story.count(e.TurnParked)
            <= sum(asked.expect == "silence" for asked in outside.asked.values())
        )
    finally:
        await fleet.close()
