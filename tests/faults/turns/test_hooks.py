"""A server that dies after it promised to read somebody again: it is read after the next start."""

from __future__ import annotations

import httpx2
import pytest

from app.aggregates import events as e
from tests.integration.turns.processes import Server

pytestmark = pytest.mark.slow

ANA = "15550103901"


async def test_what_a_hook_was_promised_survives_a_kill(server: Server) -> None:
    await server.start()
    await server.outside.say(ANA)
    await server.outside.reads(ANA)
    await server.settled()
    await server.outside.phone(ANA, "profile", name="Ana de Prueba", labels=[])
    await server.outside.break_whapi("GET /chats/*", "status", status=503, times=1000)
    async with httpx2.AsyncClient(base_url=server.url, timeout=10) as client:
        answer = await client.post("/update-user", json={"userId": ANA})
    assert (answer.status_code, answer.json()["success"]) == (200, True)
    await server.kill()
    assert server.story().count(e.ProfileUpdated) == 0
    await server.outside.mend()
    await server.start()
    await server.until(lambda: server.story().count(e.ProfileUpdated) == 1)
    assert await server.stop() == 0
