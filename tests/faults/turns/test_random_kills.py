"""The server is killed with -9 again and again, wherever it happens to be, in a faulty world."""

from __future__ import annotations

import random

import pytest

from app.aggregates import events as e
from tests.faults.turns.crowd import is_faulty, some_events, traffic
from tests.integration.turns.outside import Outside
from tests.integration.turns.processes import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

ROUNDS = 5


@pytest.mark.parametrize(("mode", "seed"), [("background", 7), ("stream", 8)])
async def test_kills_anywhere_lose_nothing_and_answer_nothing_twice(
    server: Server, outside: Outside, mode: str, seed: int
) -> None:
    rng = random.Random(seed)
    server.set("HILO_OPENAI_MODE", mode)
    server.set("HILO_ATTEMPTS", "50")
    await is_faulty(outside)
    for _ in range(ROUNDS):
        await server.start()
        await traffic(outside, rng)
        await some_events(server, rng.randint(1, 60))
        await server.kill()
    await outside.mend()
    await server.start()
    await outside.delivered()
    await server.settled(40)
    story = server.story()
    assert story.count(e.TurnParked) == 0
    assert story.count(e.RunCompleted) >= len({asked.phone for asked in outside.asked.values()})
    assert await server.stop() == 0
