"""Clients that keep the server waiting: each is given up in its time, and nobody else notices."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from app.api.patience import Limits, Patience, PatientProtocol, room_for
from tests.integration.webhooks.house import Connection, House, body, house, request, text

LIMITS = Limits(head=0.5, body=0.7, answer=0.8, connections=4)
HEAD = b"POST /webhooks/whapi HTTP/1.1\r\nhost: h\r\nx-hilo-secret: of-the-channel\r\n"


@pytest.fixture
def patience() -> Patience:
    return Patience(LIMITS)


@pytest.fixture
async def opened(tmp_path: Path, patience: Patience) -> AsyncIterator[House]:
    async with house(tmp_path, timeout_keep_alive=1, patience=patience) as opened:
        yield opened


class Clients:
    """Connections that somebody closes in the end."""

    def __init__(self, opened: House) -> None:
        self._opened = opened
        self.connections: list[Connection] = []

    async def __call__(self, count: int) -> list[Connection]:
        new = [await self._opened.connect() for _ in range(count)]
        self.connections += new
        return new


@pytest.fixture
async def connected(opened: House) -> AsyncIterator[Clients]:
    clients = Clients(opened)
    yield clients
    for connection in clients.connections:
        await connection.close()


async def drips(connection: Connection, what: bytes) -> bytes:
    """Send bytes one by one, for ever; return what the server says before it ends that."""
    ended = asyncio.ensure_future(connection.ended())
    sent = 0
    while not ended.done():
        connection.write(what[sent % len(what) :][:1])
        sent += 1
        await asyncio.wait([ended], timeout=0.02)
    try:
        return await ended
    except ConnectionError:
        return b""


async def is_served(opened: House, number: int) -> bool:
    """Tell whether a message that comes at once is taken."""
    (answer,) = await opened.ask(request(body(text(f"wamid.{number}"))))
    return answer.startswith(b"HTTP/1.1 200 ")


async def test_a_head_that_does_not_end_is_given_up(
    opened: House, patience: Patience, connected: Clients
) -> None:
    unfinished, dripping = await connected(2)
    unfinished.write(HEAD)
    said, _ = await asyncio.gather(unfinished.ended(), drips(dripping, b"GET / HTTP/1.1\r\nx: y"))
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in said
    assert b"/problems/too-slow" in said
    assert patience.given_up == {"head": 2}
    assert await is_served(opened, 1)


async def test_what_is_no_request_is_answered_with_a_problem_document(
    opened: House, connected: Clients
) -> None:
    (client,) = await connected(1)
    client.write(b"hello\r\n\r\n")
    said = await client.ended()
    assert said.startswith(b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json")
    assert b'"type":"/problems/unreadable-request"' in said


async def test_who_says_nothing_or_nothing_of_a_request_is_left_without_a_word(
    opened: House, patience: Patience, connected: Clients
) -> None:
    silent, empty, served = await connected(3)
    served.write(request(body(text("wamid.1"))))
    assert (await served.answer()).startswith(b"HTTP/1.1 200 ")
    ends = await asyncio.gather(silent.ended(), drips(empty, b"\r\n"), drips(served, b"\r\n"))
    assert set(ends) == {b""}
    assert patience.given_up == {"head": 3}


async def test_a_body_that_does_not_end_is_given_up_and_nothing_is_taken_of_it(
    opened: House, patience: Patience, connected: Clients
) -> None:
    content = body(text("wamid.1"))
    announced = HEAD + b"content-length: %d\r\n\r\n" % len(content)
    cut, dripping, refused = await connected(3)
    cut.write(announced + content[:-1])
    dripping.write(announced)
    refused.write(HEAD + b"content-length: 5000000\r\n\r\n")
    said = (await refused.answer()).partition(b"\r\n")[0]
    assert said.startswith(b"HTTP/1.1 413 ")
    ends = await asyncio.gather(cut.ended(), drips(dripping, b" "), drips(refused, b" "))
    assert ends[0].startswith(b"HTTP/1.1 408 ")
    assert ends[2] == b""
    assert patience.given_up == {"body": 3}
    assert "MessageReceived" not in opened.types()
    assert await is_served(opened, 1)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{opened.port}") as client:
        shown = (await client.get("/metrics")).text
    assert "hilo_connections_given_up_body_total 3.0" in shown


async def test_a_client_waits_for_a_slow_server_as_long_as_it_takes(
    opened: House, patience: Patience, connected: Clients
) -> None:
    opened.gate.shut()
    (waiting,) = await connected(1)
    waiting.write(request(body(text("wamid.1"))))
    await opened.waits(1)
    for slow in await connected(2):  # their ends tell that many looks have passed
        slow.write(HEAD)
        await slow.ended()
    opened.gate.open()
    assert (await waiting.answer()).startswith(b"HTTP/1.1 200 ")
    assert patience.given_up == {"head": 2}


async def test_an_answer_that_nobody_reads_is_given_up(
    opened: House, patience: Patience, connected: Clients
) -> None:
    (greedy,) = await connected(1)
    greedy._writer.transport.pause_reading()  # type: ignore[attr-defined]
    ask = b"GET /v1/openapi.json HTTP/1.1\r\nhost: h\r\n\r\n"
    greedy.write(ask * 500)
    async with asyncio.timeout(20):
        while not patience.given_up["answer"]:
            assert await is_served(opened, 1)
    assert patience.given_up == {"answer": 1}


@pytest.mark.parametrize("looked_at", [True, False])
async def test_those_who_keep_silent_make_room_for_those_who_speak(
    opened: House, patience: Patience, connected: Clients, *, looked_at: bool
) -> None:
    silent = await connected(LIMITS.connections)
    if looked_at:
        async with asyncio.timeout(20):
            while len(patience._since) < LIMITS.connections:  # noqa: ASYNC110 - until the next look
                await asyncio.sleep(0)
    assert await is_served(opened, 1)
    assert patience.given_up["room"] == 1
    ends = await asyncio.gather(*[connection.ended() for connection in silent])
    assert ends == [b""] * LIMITS.connections


async def test_where_all_are_at_work_one_more_is_told_to_come_again(
    opened: House, patience: Patience, connected: Clients
) -> None:
    opened.gate.shut()
    busy = await connected(LIMITS.connections)
    for number, connection in enumerate(busy):
        connection.write(request(body(text(f"wamid.{number}"))))
    await opened.waits(LIMITS.connections)
    (late,) = await connected(1)
    refused = await late.ended()
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 5" in refused
    opened.gate.open()
    for connection in busy:
        assert (await connection.answer()).startswith(b"HTTP/1.1 200 ")
    assert patience.given_up == {"refused": 1}


def test_it_costs_a_request_nothing() -> None:
    own = {name for name in vars(PatientProtocol) if not name.startswith("__")}
    assert own == {"connection_made", "waits_for", "give_up", "send_400_response"}


def test_no_more_connections_are_let_in_than_files_may_be_open() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, before[1]))
        assert room_for(1000) == 1000
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 1256
        assert room_for(10) == 10
        assert room_for(2**40) < before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
