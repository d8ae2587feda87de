"""People who write while servers die, and a world that fails now and then."""

from __future__ import annotations

import asyncio
import random

from eventstore.subscription import Subscription
from tests.integration.turns.outside import LISTS, RESPONSES, SENDS, Outside
from tests.integration.turns.processes import Server

PHONES = [f"155501001{n:02}" for n in range(8)]


async def is_faulty(outside: Outside) -> None:
    """Let webhooks come twice and in no order, answers break, and sends go unanswered."""
    await outside.webhook("", duplicates=0.2, scatter=0.05)
    await outside.pace(60)
    await outside.break_openai(RESPONSES, "disconnect_after", times=0, rate=0.04)
    await outside.break_openai(RESPONSES, "cut_stream", times=0, rate=0.04)
    await outside.break_openai(RESPONSES, "cut_stream", times=0, rate=0.04, bill=False)
    await outside.break_openai(RESPONSES, "status", times=0, rate=0.04, status=502)
    await outside.break_whapi(SENDS, "disconnect_after", times=0, rate=0.06)
    await outside.break_whapi(SENDS, "disconnect", times=0, rate=0.06)
    await outside.break_whapi(LISTS, "status", times=0, rate=0.2, status=503)


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
        log = server.log()
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
