"""`hilo serve` as a process: one to a directory, and it ends in good order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.aggregates import events as e
from tests.integration.turns.outside import Outside
from tests.integration.turns.processes import Server, simulators

ANA = "15550108001"


@pytest.fixture
async def outside() -> AsyncIterator[Outside]:
    async with simulators() as outside:
        yield outside


@pytest.fixture
async def server(outside: Outside, tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(outside, tmp_path)
    yield server
    await server.close()


async def test_a_second_server_on_one_directory_is_refused_and_says_why(
    server: Server, outside: Outside, tmp_path: Path
) -> None:
    await server.start()
    second = Server(outside, tmp_path)
    await second.start(wait=False)
    assert await second.dies() == 3
    assert b"is in use by process" in second.said
    assert b"Traceback" not in second.said
    await outside.webhook(f"{server.url}/webhooks/whapi")
    await outside.say(ANA)
    await outside.reads(ANA)
    await server.settled()
    assert await server.stop() == 0


async def test_a_server_that_is_asked_to_stop_finishes_what_runs(
    server: Server, outside: Outside
) -> None:
    await outside.pace(600)
    await server.start()
    await outside.say(ANA)
    await outside.openai_waits("active=1")
    assert await server.stop() == 0
    story = server.story()
    assert story.count(e.RunStarted) == story.count(e.RunCompleted) == story.count(e.MessageSent)
    assert len(await outside.reads(ANA)) == 1
    assert server.said.count(b"Traceback") == 0
    await server.start()
    await server.settled()
    assert not any("error" in line.split()[1:2] for line in server.technical_log())
    assert await server.stop() == 0
