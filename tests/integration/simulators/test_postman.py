"""The simulated gateway's postman: nothing that is queued is left lying."""

from __future__ import annotations

import random

from app.simulators.whapi_webhooks import Event, Postman, Webhook
from tests.integration.simulators.conftest import DEADLINE, Hook

BODY = b'{"messages": [], "event": {"type": "messages", "event": "post"}}'


async def test_what_is_queued_at_the_moment_when_all_else_was_delivered_goes_out(
    hook: Hook,
) -> None:
    postman = Postman(random.Random(1))
    postman.webhooks = [Webhook(url=hook.url)]
    try:
        for number in range(1, 6):
            postman.post_raw(Event("messages"), BODY)
            assert await postman.drained(DEADLINE), f"the {number}. one was left lying"
    finally:
        await postman.close()
    assert len(hook.got) == 5
