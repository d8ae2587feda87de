"""The OpenAI simulator keeps the vendor's promises, as its own client library sees them."""

import asyncio
from collections.abc import AsyncIterable
from typing import cast

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseStreamEvent

from tests.integration.simulators.conftest import Lab

MODEL = "gpt-5.4-mini"


async def read(stream: AsyncIterable[ResponseStreamEvent]) -> list[ResponseStreamEvent]:
    return [event async for event in stream]


async def reported(brain: Lab) -> dict[str, int]:
    account = await brain.get("/_sim/account?responses=0")
    return cast("dict[str, int]", account["reported"])


async def entries(brain: Lab) -> list[dict[str, object]]:
    return cast("list[dict[str, object]]", (await brain.get("/_sim/account"))["responses"])


async def test_a_conversation_remembers_what_was_said(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create(metadata={"user": "ana"})
    first = await client.responses.create(
        model=MODEL, input="hola", conversation=conversation.id, metadata={"run": "1"}
    )
    second = await client.responses.create(
        model=MODEL,
        conversation={"id": conversation.id},
        input=[
            {"role": "user", "content": "¿qué tal?"},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "mira esto"},
                    {
                        "type": "input_image",
                        "detail": "auto",
                        "image_url": "data:image/png;base64,AAAA",
                    },
                ],
            },
        ],
    )

    assert first.output_text == "Eco: hola"
    assert first.metadata == {"run": "1"}
    assert second.output_text == "Eco: ¿qué tal? | mira esto (y 1 adjunto)"
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.total_tokens
    items = [item async for item in client.conversations.items.list(conversation.id, order="asc")]
    assert [getattr(item, "role", None) for item in items] == [
        "user", "assistant", "user", "user", "assistant",
    ]  # fmt: skip
    assert all(item.id and item.id.startswith("msg_") for item in items)


async def test_items_are_listed_in_pages_and_deleted_one_by_one(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create(
        items=[{"role": "user", "content": str(n)} for n in range(20)]
    )
    page = await client.conversations.items.list(conversation.id, order="asc", limit=15)
    assert page.last_id is not None
    rest = await client.conversations.items.list(
        conversation.id, order="asc", limit=15, after=page.last_id
    )
    assert (len(page.data), page.has_more) == (15, True)
    assert (len(rest.data), rest.has_more) == (5, False)
    assert rest.last_id is not None
    newest = await client.conversations.items.list(conversation.id, limit=1)
    assert newest.data[0].id == rest.data[-1].id

    await client.conversations.items.delete(rest.last_id, conversation_id=conversation.id)
    left = [item async for item in client.conversations.items.list(conversation.id)]
    assert len(left) == 19


async def test_at_most_twenty_items_at_once(client: AsyncOpenAI) -> None:
    many = [{"role": "user", "content": "x"} for _ in range(21)]
    with pytest.raises(openai.BadRequestError) as refused:
        await client.conversations.create(items=many)  # type: ignore[arg-type]
    assert refused.value.code == "array_above_max_length"
    conversation = await client.conversations.create()
    with pytest.raises(openai.BadRequestError):
        await client.conversations.items.create(conversation.id, items=many)  # type: ignore[arg-type]
    added = await client.conversations.items.create(
        conversation.id, items=[{"role": "user", "content": "x"}] * 20
    )
    assert len(added.data) == 20


async def test_conversations_are_updated_deleted_and_then_unknown(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create()
    updated = await client.conversations.update(conversation.id, metadata={"a": "b"})
    assert updated.metadata == {"a": "b"}
    assert (await client.conversations.delete(conversation.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await client.conversations.retrieve(conversation.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model=MODEL, input="hola", conversation=conversation.id)


async def test_a_stream_has_every_event_in_order_and_a_last_word(client: AsyncOpenAI) -> None:
    events = await read(
        await client.responses.create(model=MODEL, input="una frase " * 20, stream=True)
    )
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert [event.sequence_number for event in events] == list(range(len(events)))
    written = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == written
    assert last.response.usage is not None


async def test_a_background_response_is_retrieved_when_it_is_done(
    client: AsyncOpenAI, brain: Lab
) -> None:
    created = await client.responses.create(model=MODEL, input="hola", background=True)
    assert created.status == "queued"
    await brain.get("/_sim/wait?billed=1&idle=1")
    done = await client.responses.retrieve(created.id)
    assert (done.status, done.output_text) == ("completed", "Eco: hola")
    assert done.usage is not None
    assert (await reported(brain))["total_tokens"] == done.usage.total_tokens
    await client.responses.delete(created.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(created.id)
    assert len(await entries(brain)) == 1


async def test_only_background_responses_are_cancelled(client: AsyncOpenAI, brain: Lab) -> None:
    plain = await client.responses.create(model=MODEL, input="hola")
    with pytest.raises(openai.BadRequestError):
        await client.responses.cancel(plain.id)

    await brain.post("/_sim/latency", mean_ms=60_000)
    slow = await client.responses.create(model=MODEL, input="hola", background=True)
    cancelled = await client.responses.cancel(slow.id)
    assert cancelled.status == "cancelled"
    assert (await client.responses.cancel(slow.id)).status == "cancelled"
    assert (await client.responses.retrieve(slow.id)).usage is not None
    assert (await reported(brain))["responses"] == 2


async def test_one_active_response_per_conversation(client: AsyncOpenAI, brain: Lab) -> None:
    conversation = await client.conversations.create()
    await brain.post("/_sim/latency", mean_ms=60_000)
    active = await client.responses.create(
        model=MODEL, input="hola", conversation=conversation.id, background=True
    )
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model=MODEL, input="otra", conversation=conversation.id)
    assert refused.value.code == "conversation_locked"
    with pytest.raises(openai.BadRequestError):
        await client.conversations.items.create(
            conversation.id, items=[{"role": "user", "content": "x"}]
        )

    await client.responses.cancel(active.id)
    await brain.post("/_sim/latency", mean_ms=0)
    freed = await client.responses.create(model=MODEL, input="otra", conversation=conversation.id)
    assert freed.status == "completed"


async def test_a_background_stream_goes_on_without_its_reader(
    client: AsyncOpenAI, brain: Lab
) -> None:
    await brain.fault("POST /v1/responses", "slow_stream", seconds=0.02)
    stream = await client.responses.create(
        model=MODEL, input="hola " * 30, background=True, stream=True
    )
    seen: list[int] = []
    response_id = ""
    async for event in stream:
        seen.append(event.sequence_number)
        if event.type == "response.created":
            response_id = event.response.id
        if event.type == "response.output_text.delta":
            break
    await stream.close()

    rest = await read(
        await client.responses.retrieve(response_id, stream=True, starting_after=seen[-1])
    )
    assert rest[0].sequence_number == seen[-1] + 1
    assert rest[-1].type == "response.completed"
    again = await read(await client.responses.retrieve(response_id, stream=True))
    assert [event.sequence_number for event in again] == list(range(len(again)))


async def test_a_plain_stream_dies_with_its_reader_and_is_still_billed(
    client: AsyncOpenAI, brain: Lab
) -> None:
    await brain.post("/_sim/latency", mean_ms=60_000)
    stream = await client.responses.create(model=MODEL, input="hola", stream=True)
    async for event in stream:
        if event.type == "response.in_progress":
            break
    await stream.close()
    await brain.get("/_sim/wait?billed=1&idle=1")
    [entry] = await entries(brain)
    assert entry["status"] == "cancelled"
    found = await client.responses.retrieve(str(entry["id"]))
    assert found.usage is not None
    assert found.usage.total_tokens == (await reported(brain))["total_tokens"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"input": "hola"}, "missing_required_parameter"),
        ({"model": MODEL}, "missing_required_parameter"),
        (
            {"model": MODEL, "input": "x", "conversation": "conv_1", "previous_response_id": "r"},
            "mutually_exclusive_parameters",
        ),
        (
            {"model": MODEL, "input": "x", "previous_response_id": "r"},
            "previous_response_not_found",
        ),
        ({"model": MODEL, "input": [{"role": "king", "content": "x"}]}, "invalid_value"),
        ({"model": MODEL, "input": 7}, "invalid_json"),
        ({"model": MODEL, "input": "x", "background": True, "store": False}, "invalid_value"),
        (
            {"model": MODEL, "input": "x", "conversation": {"name": "x"}},
            "missing_required_parameter",
        ),
    ],
)
async def test_what_the_vendor_refuses_is_refused(
    brain: Lab, body: dict[str, object], code: str
) -> None:
    headers = {"authorization": "Bearer x"}
    answer = await brain.http.post("/v1/responses", json=body, headers=headers)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/responses", b"{", 400),
        ("POST", "/v1/responses", b"\xff\xfe", 400),
        ("POST", "/v1/conversations/nope/items", b"[]", 404),
        ("GET", "/v1/responses/nope", b"", 404),
        ("GET", "/v1/nowhere", b"", 404),
        ("PUT", "/v1/models", b"", 405),
        ("POST", "/_sim/faults", b'[{"match": "*", "kind": "magic"}]', 400),
        ("GET", "/_sim/wait?timeout=nan", b"", 400),
    ],
)
async def test_garbage_gets_an_error_of_the_vendors_shape(
    brain: Lab, method: str, path: str, body: bytes, status: int
) -> None:
    headers = {"authorization": "Bearer x"}
    answer = await brain.http.request(method, path, content=body, headers=headers)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_without_a_key_nothing_is_answered(brain: Lab) -> None:
    answer = await brain.http.post("/v1/responses", json={"model": MODEL, "input": "x"})
    assert answer.status_code == 401


async def test_models_say_when_they_end(client: AsyncOpenAI) -> None:
    models = [model async for model in client.models.list()]
    assert any(model.shutdown_date for model in models)
    with pytest.raises(openai.NotFoundError) as refused:
        await client.responses.create(model="gpt-3.5-turbo", input="hola")
    assert refused.value.code == "model_not_found"


async def test_voices_are_heard_and_spoken(client: AsyncOpenAI) -> None:
    heard = await client.audio.transcriptions.create(
        file=("nota.ogg", b"x" * 100, "audio/ogg"), model="gpt-4o-mini-transcribe"
    )
    assert "nota.ogg (100 bytes)" in heard.text
    spoken = await client.audio.speech.create(
        input="hola", model="gpt-4o-mini-tts", voice="alloy", response_format="opus"
    )
    assert (await spoken.aread()).startswith(b"OggS")


async def test_answers_that_never_arrived_are_in_the_account(
    client: AsyncOpenAI, brain: Lab
) -> None:
    conversation = await client.conversations.create()
    await brain.fault("POST /v1/responses", "disconnect_after")
    with pytest.raises(openai.APIConnectionError):
        await client.responses.create(
            model=MODEL, input="hola", conversation=conversation.id, metadata={"run": "7"}
        )
    [entry] = await entries(brain)
    assert entry["status"] == "completed"
    assert entry["metadata"] == {"run": "7"}
    assert entry["input_texts"] == ["hola"]
    assert entry["conversation"] == conversation.id
    assert (await reported(brain))["responses"] == 1


async def test_many_at_once_are_each_billed_once(client: AsyncOpenAI, brain: Lab) -> None:
    answers: list[Response] = await asyncio.gather(
        *(client.responses.create(model=MODEL, input=f"n {n}") for n in range(40))
    )
    assert {answer.output_text for answer in answers} == {f"Eco: n {n}" for n in range(40)}
    total = sum(answer.usage.total_tokens for answer in answers if answer.usage)
    assert (await reported(brain))["total_tokens"] == total


async def test_a_body_larger_than_the_limit_is_refused(
    brain: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.simulators.web.MAX_BODY_BYTES", 1000)
    headers = {"authorization": "Bearer x"}
    answer = await brain.http.post("/v1/responses", content=b"x" * 2000, headers=headers)
    assert answer.status_code == httpx2.codes.CONTENT_TOO_LARGE
