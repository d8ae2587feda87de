"""Memory (A15): whatever this process holds is bounded, however many people write."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx2
import pytest

from app import stores
from app.aggregates import events as e
from app.conversation import threads
from app.projections import engine, people, turn_latency
from eventstore import sqlite_appends
from tests.integration.turns.holding import sizes
from tests.integration.turns.stage import Stage

PEOPLE = 30
BOUND = 10


async def phase(stage: Stage, number: int) -> Counter[str]:
    """People who never wrote before are answered, and looked at; return what is then held."""
    phones = [f"15550{number}{one:05d}" for one in range(PEOPLE)]
    await asyncio.gather(*(stage.outside.say(phone) for phone in phones))
    await stage.has(e.ActivityRecorded, PEOPLE * (number + 1))
    bot = stage.bot
    async with httpx2.AsyncClient(base_url=stage.url, timeout=30) as client:
        for user in stage.story().states:
            name = user.removeprefix("user/")
            for path in (f"/v1/users/{name}/client", f"/v1/events?user={name}", "/v1/threads"):
                assert (await client.get(path)).status_code == 200
    head = bot.log.head().position
    await stage.until(lambda: bot.dispatcher.waiting + bot.dispatcher.running == 0)
    await stage.until(lambda: len(bot.todo) + bot.todo.records == 0)
    await bot.todo.save()  # it remembers what was open when it was last saved
    assert await asyncio.to_thread(bot.follower.progress.wait_for, head, 10)
    return sizes(bot=bot, reads=stage.seat.reads, door=stage.door)


async def test_nothing_that_is_held_grows_with_the_people_who_wrote(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounds are small here; what has none holds as many more as there are new people."""
    monkeypatch.setattr(stores, "KEYS_IN_MEMORY", BOUND)
    monkeypatch.setattr(stores, "IDENTITIES_IN_MEMORY", BOUND)
    monkeypatch.setattr(threads, "CHECKED_THREADS", BOUND)
    monkeypatch.setattr(engine, "LIVE_NAMES", BOUND)
    monkeypatch.setattr(people, "KEPT_ROWS", BOUND)
    monkeypatch.setattr(turn_latency, "KEPT_ROWS", BOUND)
    monkeypatch.setattr(sqlite_appends, "_STREAM_CACHE", BOUND)
    await stage.open(user_cache=BOUND, client_cache=BOUND, activity_seconds=0.05)
    await phase(stage, 0)
    before = await phase(stage, 1)
    after = await phase(stage, 2)
    assert "bot.users._cells" in before
    growing = {path: after[path] - before[path] for path in after}
    assert {path: by for path, by in growing.items() if by > PEOPLE // 3} == {}
