"""The short way of a webhook: what is answered is what the ASGI way answers, and when it may be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from app.api.short_way import MOST_HEAD
from app.conversation.facts import Person
from app.conversation.identities import user_stream
from eventstore.errors import LogUnavailable
from tests.integration.webhooks.house import ANA, BEA, SECRET, House, body, house, request, text

OK = b'{"received": 1}'
ONE = request(body(text("m1")))
AGAIN = request(body(text("m0")))
CHUNKED = (
    b"POST /webhooks/whapi HTTP/1.1\r\nhost: here\r\n%btransfer-encoding: chunked\r\n\r\n" % SECRET
)
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: here\r\n\r\n"


@pytest.fixture
async def short(tmp_path: Path) -> AsyncIterator[House]:
    """A server with the short way, where Ana is known."""
    async with house(tmp_path / "short", short=True) as opened:
        await opened.ask(request(body(text("first"))))
        yield opened


def chunked(content: bytes) -> bytes:
    half = len(content) // 2
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (content[:half], content[half:]))
    return CHUNKED + pieces + b"0\r\n\r\n"


ELSEWHERE = b"POST /webhooks/whapi/messages HTTP/1.1"
ABSOLUTE = b"POST http://here/webhooks/whapi HTTP/1.1"
REQUESTS: list[tuple[str, list[bytes], int]] = [
    ("one message", [ONE], 1),
    ("the same again", [ONE, ONE], 2),
    ("somebody unknown", [request(body(text("m2", BEA)))], 1),
    ("the connection is to be closed", [request(body(text("m3")), b"connection: close")], 1),
    ("HTTP/1.0", [request(body(text("m4")), line=b"POST /webhooks/whapi HTTP/1.0")], 1),
    ("with a query", [request(body(text("m5")), line=b"POST /webhooks/whapi?a=b HTTP/1.1")], 1),
    ("another path", [request(body(text("m6")), line=ELSEWHERE)], 1),
    ("an absolute address", [request(body(text("m7")), line=ABSOLUTE)], 1),
    ("PUT", [request(body(text("m8")), line=b"PUT /webhooks/whapi HTTP/1.1")], 1),
    ("head and body apart", [ONE[:-30], ONE[-30:]], 1),
    ("nothing but the head at first", [ONE[: ONE.index(b"{")], ONE[ONE.index(b"{") :]], 1),
    ("in chunks", [chunked(body(text("m9")))], 1),
    ("two in a row", [request(body(text("p1"))) + request(body(text("p2")))], 2),
    ("three in a row", [request(body(text("q1"))) + HEALTH + request(body(text("q2", BEA)))], 3),
    ("two, and a half", [ONE + ONE + ONE[:40], ONE[40:]], 3),
    ("wrong secret", [ONE.replace(b"of-the-channel", b"of-another-one")], 1),
    ("no secret", [ONE.replace(SECRET, b"")], 1),
    ("two messages", [request(body(text("t1"), text("t2")))], 1),
    ("no message", [request(body())], 1),
    ("by a human", [request(body(text("h1", from_me=True)))], 1),
    ("an echo", [request(body(text("e1", from_me=True, source="api")))], 1),
    ("an edit", [request(body(text("first"), event={"type": "messages", "event": "put"}))], 1),
    ("no JSON", [request(b"{")], 1),
    ("no object", [request(b"[]")], 1),
    ("no body", [request(b"")], 1),
    ("not UTF-8", [request(body(text("u1")).replace(b"hola", b"h\xffla"))], 1),
    ("half an emoji", [request(body(text("u2")).replace(b"hola", b"\\ud83d"))], 1),
    ("of a group", [request(body(text("g1", chat_id="123456@g.us")))], 1),
    ("a message without an id", [request(body(text("")))], 1),
    ("a status", [request(msgspec.json.encode({"statuses": [{"id": "s", "status": "read"}]}))], 1),
    ("too large", [request(b" " * (1024 * 1024 + 1))], 1),
    ("no HTTP", [b"hello\r\n\r\n"], 1),
    ("a head in two pieces", [AGAIN[:40], AGAIN[40:]], 1),
    ("the rest of a head alone", [AGAIN[40:]], 1),
    ("the last byte apart", [request(body(text("s1")))[:-1], b"}"], 1),
    ("an empty line before it", [b"\r\n" + request(body(text("n1")))], 1),
    ("an empty line behind it", [AGAIN + b"\r\n", AGAIN], 2),
]  # fmt: skip


async def test_every_request_is_answered_as_the_asgi_way_answers_it(tmp_path: Path) -> None:
    said: list[dict[str, list[bytes]]] = []
    logs: list[list[str]] = []
    for short in (True, False):
        async with house(tmp_path / str(short), short=short) as opened:
            await opened.ask(request(body(text("first"))))
            said.append({n: await spoken(opened, parts, answers) for n, parts, answers in REQUESTS})
            logs.append(opened.types())
            assert not opened.server.server_state.tasks
    assert said[0] == said[1]
    assert logs[0] == logs[1]


async def test_the_same_holds_behind_a_request_whose_head_is_known(tmp_path: Path) -> None:
    said: list[dict[str, list[bytes]]] = []
    logs: list[list[str]] = []
    for short in (True, False):
        async with house(tmp_path / str(short), short=short) as opened:
            await opened.ask(request(body(text("first"))))
            said.append({})
            for number, (name, parts, answers) in enumerate(REQUESTS):
                before = [request(body(text(f"b{number:02}{again}"))) for again in "xy"]
                said[-1][name] = await spoken(opened, parts, answers, before)
            logs.append(facts(opened))
            assert not opened.server.server_state.tasks
            assert (opened.ingress.heads.hits > len(REQUESTS)) == short
    assert said[0] == said[1]
    assert logs[0] == logs[1]


def facts(opened: House) -> list[str]:
    """The events of webhooks: after fifty messages a turn is due, whenever that is."""
    return [type_ for type_ in opened.types() if not type_.startswith(("Run", "Thread", "Turn"))]


@pytest.mark.parametrize("behind", [AGAIN[40:], b"x", b"\n" + AGAIN])
async def test_what_is_no_request_is_refused_behind_one_whose_head_is_known(
    short: House, behind: bytes
) -> None:
    connection = await short.connect()
    for pieces in ([ONE], [AGAIN[:40], AGAIN[40:]], [ONE], [ONE + b"\r"]):
        for piece in pieces:
            connection.write(piece)
            await short.ask(HEALTH)  # by then it has been read
        assert (await connection.answer()).endswith(OK)
    connection.write(behind)
    if behind.startswith(b"\n"):  # the end of an empty line, which means nothing
        assert (await connection.answer()).endswith(OK)
    else:
        assert (await connection.answer()).startswith(b"HTTP/1.1 400 ")
    await connection.close()


async def spoken(
    opened: House, parts: list[bytes], answers: int, before: Sequence[bytes] = ()
) -> list[bytes]:
    """Send the parts one by one, each when the server has read the last; return the answers.

    First the requests `before`, each when the last is answered.
    """
    connection = await opened.connect()
    try:
        for each in before:
            connection.write(each)
            assert (await connection.answer()).endswith(OK)
        for part in parts:
            connection.write(part)
            await opened.ask(HEALTH)  # by then it has been read
        said: list[bytes] = []
        try:
            while len(said) < answers:
                said.append(await connection.answer())
        except asyncio.IncompleteReadError as end:
            said += [end.partial, b"and no more"]
        return said
    finally:
        await connection.close()


async def test_expect_100_continue_is_answered_before_the_body_comes(short: House) -> None:
    connection = await short.connect()
    asked = request(body(text("x1")), b"expect: 100-continue")
    head, content = asked.split(b"\r\n\r\n", 1)
    connection.write(head + b"\r\n\r\n")
    assert await connection.answer() == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.write(content)
    assert (await connection.answer()).endswith(OK)
    await connection.close()


async def test_one_message_of_somebody_known_needs_no_asgi(short: House) -> None:
    before = short.ingress.asgi
    assert (await short.ask(ONE))[0].endswith(OK)
    assert short.ingress.asgi == before
    assert short.bot.receiver.counts["message_person"] == 2
    assert (await short.ask(ONE))[0].endswith(OK)
    assert short.ingress.asgi == before + 1, "a duplicate is decided again, the contract's way"
    assert short.types().count("MessageReceived") == 2


async def test_it_is_answered_when_it_is_durable_and_its_duplicate_too(short: House) -> None:
    short.gate.shut()
    first, second = await short.connect(), await short.connect()
    first.write(ONE)
    await short.waits(1)
    second.write(ONE)
    await short.waits(2)
    answers = [asyncio.create_task(c.answer()) for c in (first, second)]
    await short.ask(HEALTH)
    assert not any(answer.done() for answer in answers)
    short.gate.open()
    assert [(await answer)[-len(OK) :] for answer in answers] == [OK, OK]
    assert short.types().count("MessageReceived") == 2
    await first.close()
    await second.close()


async def test_requests_behind_it_wait_for_their_turn(short: House) -> None:
    short.gate.shut()
    connection = await short.connect()
    connection.write(ONE + HEALTH + request(body(text("m2"))))
    await short.waits(1)
    answers = asyncio.create_task(answered(connection.answer, 3))
    await short.ask(HEALTH)
    assert not answers.done()
    short.gate.open()
    first, health, second = await answers
    assert first.endswith(OK)
    assert b"ok" in health
    assert second.endswith(OK)
    await connection.close()


async def answered(answer: object, times: int) -> list[bytes]:
    assert callable(answer)
    return [await answer() for _ in range(times)]


async def test_whoever_goes_away_meanwhile_loses_nothing(short: House) -> None:
    short.gate.shut()
    connection = await short.connect()
    connection.write(ONE)
    await short.waits(1)
    await connection.close()
    await short.ask(HEALTH)
    assert len(short.server.server_state.tasks) == 1, "the server's shutdown would wait for it"
    short.gate.open()
    await short.waits(0)
    assert short.types().count("MessageReceived") == 2
    assert (await short.ask(request(body(text("m2")))))[0].endswith(OK)


async def test_a_log_that_cannot_be_written_is_a_503_and_comes_again(short: House) -> None:
    short.gate.broken = LogUnavailable("the disk is full")
    refused = (await short.ask(ONE))[0]
    assert refused.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 5" in refused
    short.gate.broken = None
    assert (await short.ask(ONE))[0].endswith(OK)
    assert short.types().count("MessageReceived") == 2


async def test_a_server_that_stops_answers_what_it_has_read(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(house(tmp_path, short=True))
        await opened.ask(request(body(text("first"))))
        opened.gate.shut()
        busy, idle = await opened.connect(), await opened.connect()
        idle.write(HEALTH)
        await idle.answer()
        busy.write(ONE)
        await opened.waits(1)
        opened.server.should_exit = True
        assert await idle.ended() == b""
        opened.gate.open()
        answer = await busy.answer()
        assert answer.endswith(OK)
        assert b"connection: close\r\n" in answer
        assert await busy.ended() == b""
        await busy.close()
        await idle.close()


async def test_a_message_that_was_taken_back_before_it_came_is_not_waited_for(
    short: House,
) -> None:
    taken_back = msgspec.json.encode({"messages_removed": ["m1"]})
    assert (await short.ask(request(taken_back)))[0].endswith(OK)
    before = short.ingress.asgi
    assert (await short.ask(ONE))[0].endswith(OK)
    assert short.ingress.asgi == before + 1
    pseudonym = await short.bot.identities.pseudonym(Person(phone=ANA))
    state = (await short.bot.users.look(user_stream(pseudonym))).state
    assert len(state.pending) == 1, "the first message only"


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not(tmp_path: Path) -> None:
    async with house(tmp_path, short=True, timeout_keep_alive=1) as opened:
        await opened.ask(request(body(text("first"))))
        opened.gate.shut()
        idle, busy = await opened.connect(), await opened.connect()
        for connection in (idle, busy):
            connection.write(HEALTH)
            await connection.answer()
        busy.write(ONE)
        assert await idle.ended() == b""
        opened.gate.open()
        assert (await busy.answer()).endswith(OK)
        assert await busy.ended() == b""
        await busy.close()
        await idle.close()


@pytest.mark.parametrize("begin", [b"GET /v1/bots?", b"GET /v1/bots HTTP/1.1\r\ncookie: "])
async def test_a_head_without_an_end_is_cut_off(short: House, begin: bytes) -> None:
    connection = await short.connect()
    connection.write(begin + b"x" * (MOST_HEAD + 1))
    assert (await connection.ended()).startswith(b"HTTP/1.1 400 ")
    await connection.close()
    (answer,) = await short.ask(HEALTH)
    assert answer.startswith(b"HTTP/1.1 200 ")
