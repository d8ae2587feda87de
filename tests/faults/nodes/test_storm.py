"""Whatever befalls the nodes, their network or their database: every promise is kept.

`make soak` lets it go on for as long as SOAK_SECONDS says.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from app.aggregates import events as e
from tests.faults.nodes.fleet import Fleet
from tests.faults.nodes.storm import Storm
from tests.faults.turns.crowd import is_faulty
from tests.integration.turns.outside import SENDS, Outside
from tests.postgres import PostgresServer

pytestmark = pytest.mark.slow
SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))
SOAK_SEED = int(os.environ.get("SOAK_SEED", "0"))
CLOCKS = (0, 60, -60)


async def sends_take_a_moment(outside: Outside) -> None:
    """Let each send be under way for so long that a node may well die meanwhile."""
    await outside.break_whapi(SENDS, "latency", times=0, seconds=0.2)


@pytest.mark.timeout(180)
async def test_every_disaster_in_turn_loses_nothing_and_answers_nothing_twice(
    outside: Outside, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    rng = random.Random(11)
    fleet = Fleet(outside, tmp_path, own_postgres, clocks=CLOCKS)
    storm = Storm(fleet, rng)
    try:
        await fleet.start()
        await is_faulty(outside)
        await sends_take_a_moment(outside)
        await storm.goes_on(rng.sample(storm.all, len(storm.all)))
        await fleet.check_promises()
        story = fleet.nodes[0].story()
        assert story.count(e.TurnParked) == 0
        assert story.count(e.TurnTakenOver) > 0
        assert story.count(e.RunCompleted) >= len({one.phone for one in outside.asked.values()})
    finally:
        await fleet.close()


@pytest.mark.skipif(not SOAK_SECONDS, reason="a soak: make soak")
@pytest.mark.timeout(SOAK_SECONDS * 2 + 300)
async def test_soak(outside: Outside, own_postgres: PostgresServer, tmp_path: Path) -> None:
    seed = SOAK_SEED or random.randrange(1, 1_000_000)
    print(f"SOAK_SEED={seed}")  # noqa: T201 - to have the same storm again
    rng = random.Random(seed)
    fleet = Fleet(outside, tmp_path, own_postgres, clocks=CLOCKS)
    storm = Storm(fleet, rng)
    try:
        await fleet.start()
        end = time.monotonic() + SOAK_SECONDS
        while time.monotonic() < end:
            await is_faulty(outside)
            await sends_take_a_moment(outside)
            await storm.goes_on(rng.choices(storm.all, k=6))
            await outside.mend()
            await outside.delivered()
            await fleet.nodes[0].settled(60)
        await fleet.check_promises(60)
    finally:
        await fleet.close()
