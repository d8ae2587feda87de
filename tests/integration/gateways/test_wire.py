"""Reading what servers write: Retry-After, error codes, server-sent events in any pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise

import httpx2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateways.http import Client, is_loopback, retry_after, safe_code
from app.gateways.openai_wire import MAX_EVENT_BYTES, events_of
from tests.integration.gateways.conftest import events

NINE = "Fri, 20 Nov 2026 10:00:09 GMT"
ZERO = "Fri, 20 Nov 2026 10:00:00 GMT"
NOW = 1_795_168_805.0  # 10:00:05

STREAM = b"".join(
    events(
        ("response.created", {"response": {"id": "resp_1", "status": "queued"}}),
        ("response.output_text.delta", {"delta": "¿qué?\r\n\r\nhola"}),
        ("response.completed", {"response": {"id": "resp_1", "status": "completed"}}),
    )
)
KINDS = ["response.created", "response.output_text.delta", "response.completed"]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": NINE}, 4.0),
        ({"retry-after": ZERO}, 0.0),
        ({"retry-after": NINE, "date": ZERO}, 9.0),
    ],
)
def test_retry_after_is_read_in_all_its_forms(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(httpx2.Headers(headers), now=NOW) == seconds


async def test_a_socket_that_was_closed_at_once_is_an_error_of_http() -> None:
    def handle(_: httpx2.Request) -> httpx2.Response:  # what is raised below httpx2 then
        msg = "'NoneType' object has no attribute 'getpeername'"
        raise AttributeError(msg)

    async with Client(transport=httpx2.MockTransport(handle)) as client:
        with pytest.raises(httpx2.ReadError, match="the connection broke"):
            await client.get("http://127.0.0.1:9/")


@pytest.mark.parametrize("code", [None, 42, "", "Has Spaces", "number_15550100042", "x" * 49])
def test_a_code_that_could_name_somebody_is_replaced(code: object) -> None:
    assert safe_code(code, "other") == "other"


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        ("http://127.0.0.1:1/v1", True),
        ("http://localhost", True),
        ("http://[::1]:80", True),
        ("https://gate.whapi.cloud", False),
        ("http://10.0.0.1", False),
    ],
)
def test_this_machine_is_never_asked_through_a_proxy(url: str, *, answer: bool) -> None:
    assert is_loopback(url) is answer


async def pieces(stream: bytes, cuts: list[int]) -> AsyncIterator[bytes]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for start, end in pairwise(edges):
        yield stream[start:end]


@given(st.lists(st.integers(0, 10_000), max_size=30), st.booleans())
async def test_a_stream_cut_anywhere_gives_the_same_events(cuts: list[int], crlf: bool) -> None:
    stream = STREAM.replace(b"\n", b"\r\n") if crlf else STREAM
    assert [event.type async for event in events_of(pieces(stream, cuts))] == KINDS


async def test_nothing_counts_after_done_or_in_comments() -> None:
    stream = b": hello\n\n" + STREAM + b"data: [DONE]\n\ndata: {broken\n\n"
    assert [event.type async for event in events_of(pieces(stream, []))] == KINDS


async def test_an_event_that_never_ends_is_given_up() -> None:
    endless = b"data: " + b"x" * MAX_EVENT_BYTES
    with pytest.raises(msgspec.DecodeError):
        assert [event async for event in events_of(pieces(endless, []))]
