"""A PostgreSQL that stands still: nobody waits for it longer than the settings say.

Its processes are there and accept connections, as far as the system can tell; they say nothing. So
it is with a server whose disk or virtual machine hangs.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2
import msgspec
import pytest

from tests.faults.nodes.fleet import NOBODY, Fleet
from tests.integration.turns.outside import PATIENCE, Outside
from tests.postgres import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ANA, EVA = "15550109001", "15550109002"
SECONDS = 1.0
BOUND = 2.5
"""What a webhook may take then: a quarter more, and the time of a busy machine."""

GIVEN_UP = 4.5
"""Seconds after which connections were given up: two for a statement, two of grace."""


def envelope(number: int, phone: str) -> bytes:
    """A message that the gateway's simulator knows nothing of."""
    message = {
        "id": f"wamid.frozen-{number}",
        "from_me": False,
        "type": "system",
        "source": "system",
        "chat_id": f"{phone}@s.whatsapp.net",
        "timestamp": 1_790_000_000,
        "from": phone,
    }
    return msgspec.json.encode(
        {"messages": [message], "event": {"type": "messages", "event": "post"}}
    )


async def test_nobody_waits_for_a_frozen_database_and_the_node_comes_back_by_itself(
    outside: Outside, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    fleet = Fleet(outside, tmp_path, own_postgres, clocks=(0,))
    (node,) = fleet.nodes
    node.set("HILO_WEBHOOK_SECONDS", str(SECONDS))
    clock = asyncio.get_running_loop().time
    try:
        await fleet.start()
        await outside.pace(60)
        await outside.say(ANA)
        await outside.reads(ANA)
        async with httpx2.AsyncClient(base_url=node.url, timeout=PATIENCE) as client:
            with own_postgres.frozen():
                began = clock()
                await asyncio.gather(*(outside.say(phone) for phone in (ANA, EVA)))
                reasons = []
                number = 0
                while clock() - began < GIVEN_UP:
                    number += 1
                    asked = clock()
                    answers = await asyncio.gather(
                        *(
                            client.post("/webhooks/whapi", content=envelope(number, phone))
                            for phone in (ANA, EVA)
                        )
                    )
                    assert clock() - asked < BOUND, "a webhook waited"
                    for answer in answers:
                        assert answer.status_code == httpx2.codes.SERVICE_UNAVAILABLE
                        assert int(answer.headers["retry-after"]) > 0
                    ready = await client.get("/readyz")
                    reasons.append(ready.json()["reason"])
                    assert ready.status_code == httpx2.codes.SERVICE_UNAVAILABLE
                    assert (await client.get("/healthz")).status_code == httpx2.codes.OK
                assert any("has not answered for" in reason for reason in reasons)
            while (await client.get("/readyz")).status_code != httpx2.codes.OK:
                assert clock() - began < PATIENCE + GIVEN_UP
                await outside.watch(NOBODY, 0.1)
        await outside.reads(EVA)
        await fleet.check_promises()
    finally:
        await fleet.close()
