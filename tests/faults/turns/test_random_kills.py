"""The server is killed with -9 again and again, wherever it happens to be, in a faulty world."""

from __future__ import annotations

import asyncio
import random

import pytest

from app.aggregates import events as e
from eventstore.sqlite import SQLiteLog
from eventstore.subscription import Subscription
from tests.integration.turns.outside import LISTS, RESPONSES, SENDS, Outside
from tests.integration.turns.processes import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

ROUNDS = 5
PHONES = [f"155501001{n:02}" for n in range(8)]


async def traffic(outside: Outside, rng: random.Random) -> None:
    """Some people write in bursts, type, and change what they wrote."""
    for phone in rng.sample(PHONES, 5):
        for _ in range(rng.randint(1, 3)):
            said = await outside.say(phone)
        if rng.random() < 0.3:
            await outside.phone(phone, "typing")
        if rng.random() < 0.3:
            await outside.edit(said, "mejor dicho")


async def some_events(server: Server, count: int) -> None:
    """Return when the log has so many more events, or after a while in any case."""

    def wait() -> None:
        log = SQLiteLog(server.data / "default" / "log.db")
        try:
            after = log.head().position + count
            subscription = Subscription(log, after=log.cursor_at(log.head().position))
            for _ in range(15):
                if log.head().position >= after:
                    return
                subscription.wait(0.1)
        finally:
            log.close()

    await asyncio.to_thread(wait)


@pytest.mark.parametrize(("mode", "seed"), [("background", 7), ("stream", 8)])
async def test_kills_anywhere_lose_nothing_and_answer_nothing_twice(
    server: Server, outside: Outside, mode: str, seed: int
) -> None:
    rng = random.Random(seed)
    server.set("HILO_OPENAI_MODE", mode)
    server.set("HILO_ATTEMPTS", "50")
    await outside.webhook("", duplicates=0.2, scatter=0.05)
    await outside.pace(60)
    await outside.break_openai(RESPONSES, "disconnect_after", times=0, rate=0.04)
    await outside.break_openai(RESPONSES, "cut_stream", times=0, rate=0.04)
    await outside.break_openai(RESPONSES, "cut_stream", times=0, rate=0.04, bill=False)
    await outside.break_openai(RESPONSES, "status", times=0, rate=0.04, status=502)
    await outside.break_whapi(SENDS, "disconnect_after", times=0, rate=0.06)
    await outside.break_whapi(SENDS, "disconnect", times=0, rate=0.06)
    await outside.break_whapi(LISTS, "status", times=0, rate=0.2, status=503)
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
