"""A log that does not answer: no webhook waits for longer than a gateway does, whichever way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.api.patience import Limits, Patience
from tests.integration.webhooks.house import BEA, House, body, house, request, text

SECONDS = 0.4
KNOWN = request(body(text("wamid.known")))
LATE = request(body(text("wamid.late")))
STRANGER = request(body(text("wamid.of-a-stranger", BEA)))


async def refused(opened: House, late: bytes) -> bytes:
    """What a webhook is told while the log does not answer; then it does, and it comes again."""
    assert [answer[:12] for answer in await opened.ask(KNOWN)] == [b"HTTP/1.1 200"]
    opened.gate.shut()
    try:
        (answer,) = await opened.ask(late)
        assert opened.ingress.outcomes == {"received": 1, "log_unavailable": 1}
        assert opened.bot.writer.busy_seconds > SECONDS / 2
    finally:
        opened.gate.open()
    (again,) = await opened.ask(late)
    assert again[:12] == b"HTTP/1.1 200"
    assert opened.types().count("MessageReceived") == 2
    await opened.waits(0)
    return answer


@pytest.mark.parametrize("late", [LATE, STRANGER], ids=["known", "unknown"])
async def test_a_webhook_is_refused_in_time_and_recorded_once_when_it_comes_again(
    tmp_path: Path, late: bytes
) -> None:
    answers = []
    for short in (True, False):
        patience = Patience(Limits(log=SECONDS)) if short else None
        directory = tmp_path / str(short)
        async with house(directory, short=short, patience=patience, seconds=SECONDS) as opened:
            answers.append(await refused(opened, late))
    assert answers[0] == answers[1]
    assert answers[0].startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 5\r\n" in answers[0]


async def test_behind_a_refused_webhook_the_connection_goes_on(tmp_path: Path) -> None:
    patience = Patience(Limits(log=SECONDS))
    async with house(tmp_path, patience=patience, seconds=SECONDS) as opened:
        await opened.ask(KNOWN)
        opened.gate.shut()
        connection = await opened.connect()
        connection.write(LATE + LATE)
        asgi = opened.ingress.asgi
        first = await connection.answer()
        opened.gate.open()
        assert first.startswith(b"HTTP/1.1 503 ")
        assert (await connection.answer()).startswith(b"HTTP/1.1 200 ")
        assert opened.ingress.asgi == asgi + 1, "the first went the ASGI way, too"
        await connection.close()
        assert patience.given_up.total() == 0
        assert opened.types().count("MessageReceived") == 2


async def test_who_waits_for_the_log_makes_no_room_for_others(tmp_path: Path) -> None:
    patience = Patience(Limits(log=SECONDS, connections=1))
    async with house(tmp_path, patience=patience, seconds=SECONDS) as opened:
        await opened.ask(KNOWN)
        opened.gate.shut()
        waiting = await opened.connect()
        waiting.write(LATE)
        await opened.waits(1)
        async with asyncio.timeout(10):
            while patience.open != 1:  # noqa: ASYNC110 - until it has looked
                await asyncio.sleep(0)
        other = await opened.connect()
        said = await other.answer()
        opened.gate.open()
        assert said.startswith(b"HTTP/1.1 503 ")
        assert (await waiting.answer()).startswith(b"HTTP/1.1 200 ")
        await waiting.close()
        await other.close()
