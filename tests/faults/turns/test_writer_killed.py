"""The process that writes a server's log is killed under traffic: the server goes on.

And it never outlives the bot that it writes for, not even one that could not be opened.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from pathlib import Path

import httpx2
import msgspec
import psutil
import pytest

from app.aggregates import events as e
from app.bot import Bot
from app.outside import open_outside
from app.settings import load
from tests.faults.turns.crowd import some_events, traffic
from tests.integration.turns.outside import Outside
from tests.integration.turns.processes import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

KILLS = 4


def writer_of(server: Server) -> psutil.Process:
    """The process that writes the server's log."""
    assert server._process is not None
    children = psutil.Process(server._process.pid).children()
    [child] = [child for child in children if "eventstore.writer_child" in child.cmdline()]
    return child


async def test_a_server_whose_processes_stand_still_stops_soon_and_loses_nothing(
    server: Server, outside: Outside
) -> None:
    await server.start()
    await traffic(outside, random.Random(5))
    await some_events(server, 20)
    assert server._process is not None
    for child in psutil.Process(server._process.pid).children():
        child.suspend()
    async with httpx2.AsyncClient(base_url=server.url, timeout=10) as client:
        refused = await client.post("/webhooks/whapi", content=_message("hand-1"))
    assert refused.status_code == 503, "nothing is answered that may not be durable"
    begun = time.monotonic()
    assert await server.stop() == 0
    assert time.monotonic() - begun < 15
    await server.start()
    await outside.delivered()
    await server.settled(40)


def _message(number: str) -> bytes:
    phone = "15550108077"
    message = {"id": number, "type": "text", "from": phone, "from_me": False}
    message |= {"chat_id": f"{phone}@s.whatsapp.net", "timestamp": 1795000000}
    message |= {"text": {"body": "hola"}}
    event = {"type": "messages", "event": "post"}
    return msgspec.json.encode({"channel_id": "DEMO", "event": event, "messages": [message]})


async def restarts(server: Server) -> float:
    """What the server's metrics say."""
    async with httpx2.AsyncClient(base_url=server.url, timeout=10) as client:
        lines = (await client.get("/metrics")).text.splitlines()
    [number] = [line for line in lines if line.startswith("hilo_log_writer_restarts_total")]
    return float(number.split()[-1])


async def test_nothing_is_lost_or_doubled_when_what_writes_is_killed(
    server: Server, outside: Outside
) -> None:
    rng = random.Random(4)
    server.set("HILO_ATTEMPTS", "50")
    await outside.webhook("", duplicates=0.2, scatter=0.05)
    await server.start()
    assert await restarts(server) == 0
    for kills in range(KILLS):
        await traffic(outside, rng)
        await some_events(server, rng.randint(1, 40))
        writer_of(server).kill()
        while await restarts(server) <= kills:
            await some_events(server, 1)
    await outside.delivered()
    await server.settled(40)
    assert await restarts(server) == KILLS
    story = server.story()
    assert story.count(e.TurnParked) == 0
    assert story.count(e.RunCompleted) >= len({asked.phone for asked in outside.asked.values()})
    said = server.technical_log(10_000)
    for what in ("LOG_WRITER_LOST", "LOG_WRITER_BACK"):
        assert sum(what in line for line in said) == KILLS, what
    child = writer_of(server)
    assert await server.stop() == 0
    assert not child.is_running()


async def test_a_bot_that_cannot_be_opened_leaves_no_process_behind(tmp_path: Path) -> None:
    settings = load(data=tmp_path / "data", logs=tmp_path / "logs")
    settings.bot_directory.mkdir(parents=True)
    (settings.bot_directory / "hooks.db").symlink_to(tmp_path / "nowhere" / "hooks.db")
    nowhere = "http://127.0.0.1:9"
    outside = open_outside(settings, openai_url=nowhere, whapi_url=nowhere)
    before = set(psutil.Process().children())
    with pytest.raises((sqlite3.Error, OSError)):
        Bot(settings, outside)
    assert set(psutil.Process().children()) == before
    closing = outside.close()
    if asyncio.iscoroutine(closing):
        await closing
