"""Every fault that can be switched on does to a client what it says, and to the account too."""

import asyncio
import json
import time
from typing import cast

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import ResponseStreamEvent

from tests.integration.simulators.conftest import Json, Lab

MODEL = "gpt-5.4-mini"
CREATE = "POST /v1/responses"
TERMINAL = {"response.completed", "response.failed", "response.incomplete"}


async def billed(brain: Lab) -> int:
    account = await brain.get("/_sim/account?responses=0")
    return cast("dict[str, int]", account["reported"])["responses"]


async def statuses(brain: Lab) -> list[object]:
    account = await brain.get("/_sim/account")
    return [entry["status"] for entry in cast("list[Json]", account["responses"])]


async def stream(client: AsyncOpenAI) -> list[ResponseStreamEvent]:
    events = await client.responses.create(model=MODEL, input="hola " * 20, stream=True)
    return [event async for event in events]


async def test_an_error_status_with_retry_after_so_many_times(
    client: AsyncOpenAI, brain: Lab
) -> None:
    await brain.fault(
        CREATE, "status", status=429, times=2, retry_after=2, code="rate_limit_exceeded"
    )
    for _ in range(2):
        with pytest.raises(openai.RateLimitError) as refused:
            await client.responses.create(model=MODEL, input="hola")
        assert refused.value.response.headers["retry-after"] == "2"
        assert refused.value.code == "rate_limit_exceeded"
    assert (await client.responses.create(model=MODEL, input="hola")).status == "completed"
    assert await billed(brain) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 500, 502, 503, 504])
async def test_any_error_status(client: AsyncOpenAI, brain: Lab, status: int) -> None:
    await brain.fault(CREATE, "status", status=status, code="of_a_test")
    with pytest.raises(openai.APIStatusError) as refused:
        await client.responses.create(model=MODEL, input="hola")
    assert (refused.value.status_code, refused.value.code) == (status, "of_a_test")


async def test_latency_delays_and_nothing_else(client: AsyncOpenAI, brain: Lab) -> None:
    await brain.fault(CREATE, "latency", seconds=0.1)
    started = time.monotonic()
    answer = await client.responses.create(model=MODEL, input="hola")
    assert answer.status == "completed"
    assert time.monotonic() - started >= 0.1


async def test_a_hanging_server_never_answers(client: AsyncOpenAI, brain: Lab) -> None:
    await brain.fault(CREATE, "hang")
    with pytest.raises(openai.APITimeoutError):
        await client.responses.create(model=MODEL, input="hola", timeout=0.1)
    await brain.fault(CREATE, "hang", seconds=0.05)
    with pytest.raises(openai.APIConnectionError):
        await client.responses.create(model=MODEL, input="hola")
    assert await billed(brain) == 0


@pytest.mark.parametrize(("kind", "bills"), [("disconnect", 0), ("disconnect_after", 1)])
async def test_a_dropped_connection(client: AsyncOpenAI, brain: Lab, kind: str, bills: int) -> None:
    await brain.fault(CREATE, kind)
    with pytest.raises(openai.APIConnectionError):
        await client.responses.create(model=MODEL, input="hola")
    assert await billed(brain) == bills


@pytest.mark.parametrize("kind", ["disconnect", "disconnect_after"])
async def test_a_dropped_stream(client: AsyncOpenAI, brain: Lab, kind: str) -> None:
    await brain.fault(CREATE, kind)
    with pytest.raises(openai.APIConnectionError):
        await stream(client)
    assert await billed(brain) == (kind == "disconnect_after")


async def test_malformed_json(client: AsyncOpenAI, brain: Lab) -> None:
    await brain.fault(CREATE, "malformed_json", times=2)
    with pytest.raises(json.JSONDecodeError):
        await client.responses.create(model=MODEL, input="hola")
    with pytest.raises(json.JSONDecodeError):
        await stream(client)
    assert await billed(brain) == 2


@pytest.mark.parametrize(("bill", "status"), [(True, "completed"), (False, "failed")])
@pytest.mark.parametrize("mean_ms", [0, 50])
async def test_a_cut_stream_has_no_last_word(
    client: AsyncOpenAI, brain: Lab, *, bill: bool, status: str, mean_ms: int
) -> None:
    await brain.post("/_sim/latency", mean_ms=mean_ms)
    await brain.fault(CREATE, "cut_stream", events=5, bill=bill)
    events = await stream(client)
    assert [event.sequence_number for event in events] == [0, 1, 2, 3, 4]
    await brain.get("/_sim/wait?idle=1")
    assert await statuses(brain) == [status]
    assert await billed(brain) == bill


async def test_a_cut_never_lets_the_last_event_through(client: AsyncOpenAI, brain: Lab) -> None:
    await brain.fault(CREATE, "cut_stream", events=1000)
    events = await stream(client)
    assert not TERMINAL & {event.type for event in events}
    assert events[-1].type == "response.output_item.done"


async def test_a_stream_can_be_cut_with_its_connection(client: AsyncOpenAI, brain: Lab) -> None:
    await brain.fault(CREATE, "cut_stream", events=3, abort=True)
    with pytest.raises((openai.APIConnectionError, httpx2.HTTPError)):
        await stream(client)


async def test_a_slow_stream_takes_its_time(client: AsyncOpenAI, brain: Lab) -> None:
    await brain.fault(CREATE, "slow_stream", seconds=0.02)
    started = time.monotonic()
    assert (await stream(client))[-1].type == "response.completed"
    assert time.monotonic() - started >= 0.06


async def test_locked_though_nothing_is_active(client: AsyncOpenAI, brain: Lab) -> None:
    conversation = await client.conversations.create()
    await brain.fault(CREATE, "locked")
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model=MODEL, input="hola", conversation=conversation.id)
    assert refused.value.code == "conversation_locked"


async def test_a_conversation_gets_lost(client: AsyncOpenAI, brain: Lab) -> None:
    lost = await client.conversations.create()
    named = await client.conversations.create()
    by_hand = await client.conversations.create()
    await brain.fault(CREATE, "conversation_lost")
    await brain.fault("GET /v1/conversations/*", "conversation_lost", conversation=named.id)
    await brain.post(f"/_sim/conversations/{by_hand.id}/lose")
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model=MODEL, input="hola", conversation=lost.id)
    for conversation in (named, lost, by_hand):
        with pytest.raises(openai.NotFoundError):
            await client.conversations.retrieve(conversation.id)


@pytest.mark.parametrize("bill", [True, False])
async def test_a_response_fails(client: AsyncOpenAI, brain: Lab, *, bill: bool) -> None:
    await brain.fault(CREATE, "fail", code="server_error", message="no puedo", times=2, bill=bill)
    failed = await client.responses.create(model=MODEL, input="hola")
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error.code, failed.error.message) == ("server_error", "no puedo")
    assert (failed.usage is not None) == bill
    assert (await stream(client))[-1].type == "response.failed"
    assert await billed(brain) == 2 * bill


async def test_a_response_stays_incomplete(client: AsyncOpenAI, brain: Lab) -> None:
    await brain.fault(CREATE, "incomplete", times=2)
    half = await client.responses.create(model=MODEL, input="hola")
    assert half.status == "incomplete"
    assert half.incomplete_details is not None
    assert half.incomplete_details.reason == "max_output_tokens"
    assert half.usage is not None
    assert "Eco: hola".startswith(half.output_text)
    assert (await stream(client))[-1].type == "response.incomplete"
    short = await client.responses.create(model=MODEL, input="x" * 400, max_output_tokens=16)
    assert short.status == "incomplete"


async def test_rules_choose_whom_they_strike(client: AsyncOpenAI, brain: Lab) -> None:
    await brain.fault(CREATE, "status", contains="ana", skip=1, times=1, status=500)
    for text in ("hola de ana", "hola de bruno"):
        assert (await client.responses.create(model=MODEL, input=text)).status == "completed"
    with pytest.raises(openai.InternalServerError):
        await client.responses.create(model=MODEL, input="otra vez ana")
    assert (await client.responses.create(model=MODEL, input="ana")).status == "completed"
    shown = await brain.get("/_sim/faults")
    assert cast("list[Json]", shown["faults"])[0]["struck"] == 1


async def test_faults_last_until_they_are_cleared(client: AsyncOpenAI, brain: Lab) -> None:
    await brain.fault("*", "status", times=0, status=503)
    outcomes = await asyncio.gather(
        *(client.responses.create(model=MODEL, input="hola") for _ in range(5)),
        return_exceptions=True,
    )
    assert all(isinstance(outcome, openai.InternalServerError) for outcome in outcomes)
    cleared = await brain.http.delete("/_sim/faults")
    assert cleared.json() == {"faults": [], "struck": 5}
    assert (await client.responses.create(model=MODEL, input="hola")).status == "completed"


async def test_a_rate_is_drawn_from_the_seed(client: AsyncOpenAI, brain: Lab) -> None:
    await brain.fault(CREATE, "status", rate=0.5, times=0)
    outcomes = [await _status(client) for _ in range(20)]
    assert set(outcomes) == {200, 500}


async def _status(client: AsyncOpenAI) -> int:
    try:
        await client.responses.create(model=MODEL, input="hola")
    except openai.APIStatusError as refused:
        return refused.status_code
    return 200


@pytest.mark.parametrize(
    ("kind", "sent"), [("disconnect", 0), ("disconnect_after", 1), ("malformed_json", 1)]
)
async def test_a_message_whose_answer_is_lost_may_have_been_sent(
    gate: Lab, kind: str, sent: int
) -> None:
    await gate.fault("POST /messages/*", kind)
    message = {"to": "15550100001", "body": "hola"}
    try:
        answer = await gate.http.post("/messages/text", json=message)
        with pytest.raises(json.JSONDecodeError):
            answer.json()
    except httpx2.TransportError:
        assert kind != "malformed_json"
    assert (await gate.get("/_sim/account"))["sent"] == sent


async def test_the_gateway_refuses_in_its_own_words(gate: Lab) -> None:
    await gate.fault("POST /messages/text", "status", status=429, retry_after=1, message="Slow")
    await gate.fault("POST /messages/text", "status", status=500)
    message = {"to": "15550100001", "body": "hola"}
    first = await gate.http.post("/messages/text", json=message)
    assert (first.status_code, first.headers["retry-after"]) == (429, "1")
    assert first.json() == {"error": {"code": 429, "message": "Slow"}}
    assert (await gate.http.post("/messages/text", json=message)).status_code == 500
    assert (await gate.http.post("/messages/text", json=message)).json()["sent"]
    await gate.fault("POST /messages/text", "hang")
    with pytest.raises(httpx2.ReadTimeout):
        await gate.http.post("/messages/text", json=message, timeout=0.1)
    assert (await gate.get("/_sim/account"))["sent"] == 1
