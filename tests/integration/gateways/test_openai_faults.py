"""Everything that can go wrong with OpenAI, over real HTTP, and what the turn is told about it."""

from __future__ import annotations

from contextlib import AsyncExitStack

import msgspec
import pytest

from app.conversation.ports import (
    ProviderError,
    RateLimited,
    Refused,
    ResponseGone,
    ThreadBusy,
    ThreadGone,
    Unreachable,
)
from app.gateways import OpenAIProvider, OpenAISettings
from app.simulators.faults import Fault
from app.simulators.openai import OpenAISimulator
from app.simulators.serving import serving
from tests.integration.gateways.conftest import (
    TEXT,
    USER,
    OpenProvider,
    Scripted,
    assert_impersonal,
    events,
)
from tests.integration.gateways.test_openai_run import (
    RESPONSES,
    answer_to,
    reported,
    steps_of,
)

CREATED = ("response.created", {"response": {"id": "resp_1", "status": "in_progress"}})


async def failure_of(provider: OpenAIProvider, thread: str) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await steps_of(provider, thread)
    assert_impersonal(caught.value)
    return caught.value


async def scripted(
    script: Scripted, settings: OpenAISettings, open_provider: OpenProvider, stack: AsyncExitStack
) -> OpenAIProvider:
    """A provider that talks to a server which always says the same."""
    url = await stack.enter_async_context(serving(script))
    return open_provider(msgspec.structs.replace(settings, base_url=f"{url}/v1"))


@pytest.mark.parametrize(
    ("status", "code", "expected", "said"),
    [
        (400, "invalid_value", Refused, "invalid_value"),
        (400, None, Refused, "http_400"),
        (400, "code_with_15550100042", Refused, "http_400"),
        (401, "invalid_api_key", Refused, "invalid_api_key"),
        (403, None, Refused, "http_403"),
        (404, "model_not_found", Refused, "model_not_found"),
        (413, None, Refused, "http_413"),
        (422, None, Refused, "http_422"),
        (429, "rate_limit_exceeded", RateLimited, "rate_limit_exceeded"),
        (429, "insufficient_quota", RateLimited, "insufficient_quota"),
        (307, None, Refused, "http_307"),
        (408, None, Unreachable, "http_408"),
        (409, None, Unreachable, "http_409"),
        (500, "server_error", Unreachable, "server_error"),
        (503, None, Unreachable, "http_503"),
    ],
)
async def test_a_clear_error_status_is_named_and_surely_not_billed(
    either: OpenAIProvider,
    openai_sim: OpenAISimulator,
    *,
    status: int,
    code: str | None,
    expected: type[ProviderError],
    said: str,
) -> None:
    thread = await either.start_thread({})
    openai_sim.faults.add(
        [Fault(match=RESPONSES, kind="status", status=status, code=code, message=TEXT)]
    )
    error = await failure_of(either, thread)
    assert (type(error), error.code, error.billed) == (expected, said, False)
    assert error.retry_after is None
    assert (await answer_to(either, thread)).status == "completed"
    assert openai_sim.state.reported.responses == 1


@pytest.mark.parametrize("status", [502, 504, 520])
async def test_an_error_of_a_gateway_in_between_may_hide_a_billed_run(
    either: OpenAIProvider, openai_sim: OpenAISimulator, status: int
) -> None:
    thread = await either.start_thread({})
    openai_sim.faults.add([Fault(match=RESPONSES, kind="status", status=status)])
    error = await failure_of(either, thread)
    assert (type(error), error.code, error.billed) == (Unreachable, f"http_{status}", True)


async def test_an_error_page_that_openai_did_not_write_may_hide_a_billed_run(
    openai_settings: OpenAISettings, open_provider: OpenProvider, stack: AsyncExitStack
) -> None:
    page = Scripted(b"<h1>Oops</h1>", status=500, content_type="text/html")
    provider = await scripted(page, openai_settings, open_provider, stack)
    error = await failure_of(provider, "conv_1")
    assert (type(error), error.code, error.billed) == (Unreachable, "http_500", True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([(b"retry-after", b"7")], 7.0),
        ([(b"retry-after", b"7"), (b"retry-after-ms", b"1500")], 1.5),
        ([(b"retry-after", b"Fri, 20 Nov 2020 10:00:09 GMT")], 0.0),
        ([(b"retry-after", b"soon")], None),
        ([], None),
    ],
)
async def test_a_rate_limit_says_how_long_to_wait_if_openai_does(
    openai_settings: OpenAISettings,
    open_provider: OpenProvider,
    stack: AsyncExitStack,
    headers: list[tuple[bytes, bytes]],
    seconds: float | None,
) -> None:
    script = Scripted(b"{}", status=429, headers=headers)
    provider = await scripted(script, openai_settings, open_provider, stack)
    error = await failure_of(provider, "conv_1")
    assert (type(error), error.code, error.retry_after) == (RateLimited, "http_429", seconds)


async def test_a_locked_conversation_is_a_busy_thread(
    either: OpenAIProvider, openai_sim: OpenAISimulator
) -> None:
    thread = await either.start_thread({})
    openai_sim.faults.add([Fault(match=RESPONSES, kind="locked")])
    error = await failure_of(either, thread)
    assert (type(error), error.code, error.billed) == (ThreadBusy, "conversation_locked", False)


async def test_a_lost_conversation_is_a_thread_that_is_gone(
    either: OpenAIProvider, openai_sim: OpenAISimulator
) -> None:
    thread = await either.start_thread({})
    openai_sim.faults.add([Fault(match=RESPONSES, kind="conversation_lost")])
    error = await failure_of(either, thread)
    assert (type(error), error.billed) == (ThreadGone, False)
    with pytest.raises(ThreadGone):
        await either.items_after(thread, None)


@pytest.mark.parametrize("body", [b"<h1>Not Found</h1>", b'{"error": {"message": "No such path"}}'])
async def test_a_wrong_address_is_not_a_lost_conversation(
    openai_settings: OpenAISettings,
    open_provider: OpenProvider,
    stack: AsyncExitStack,
    body: bytes,
) -> None:
    """Else one wrong setting would reset every thread."""
    provider = await scripted(Scripted(body, status=404), openai_settings, open_provider, stack)
    error = await failure_of(provider, "conv_1")
    assert (type(error), error.code) == (Refused, "http_404")


async def test_an_item_that_the_conversation_does_not_hold_is_not_a_lost_conversation(
    provider: OpenAIProvider,
) -> None:
    thread = await provider.start_thread({})
    with pytest.raises(Refused):
        await provider.items_after(thread, "msg_unknown")


async def test_an_unknown_response_is_gone(provider: OpenAIProvider) -> None:
    with pytest.raises(ResponseGone):
        await provider.retrieve("resp_unknown")


async def test_a_connection_that_cannot_be_opened_is_surely_not_billed(
    openai_settings: OpenAISettings, open_provider: OpenProvider, dead_url: str
) -> None:
    provider = open_provider(msgspec.structs.replace(openai_settings, base_url=f"{dead_url}/v1"))
    error = await failure_of(provider, "conv_1")
    assert (type(error), error.code, error.billed) == (Unreachable, "connect", False)


@pytest.mark.parametrize(
    ("kind", "billed_tokens"), [("disconnect", False), ("disconnect_after", True)]
)
async def test_a_connection_lost_before_any_answer_may_be_billed(
    either: OpenAIProvider, openai_sim: OpenAISimulator, kind: str, *, billed_tokens: bool
) -> None:
    thread = await either.start_thread({})
    openai_sim.faults.add([msgspec.convert({"match": RESPONSES, "kind": kind}, Fault)])
    error = await failure_of(either, thread)
    assert (type(error), error.code, error.billed) == (Unreachable, "disconnected", True)
    assert await openai_sim.runs.changed.until(lambda: not openai_sim.runs.live, 5)
    assert (reported(openai_sim) > 0) is billed_tokens


async def test_no_answer_in_time_may_be_billed(
    openai_sim: OpenAISimulator, openai_settings: OpenAISettings, open_provider: OpenProvider
) -> None:
    provider = open_provider(msgspec.structs.replace(openai_settings, run_seconds=0.2))
    thread = await provider.start_thread({})
    openai_sim.faults.add([Fault(match=RESPONSES, kind="hang")])
    error = await failure_of(provider, thread)
    assert (type(error), error.code, error.billed) == (Unreachable, "timeout", True)


async def test_a_model_that_takes_too_long_is_given_up_after_its_id_was_told(
    openai_sim: OpenAISimulator, openai_settings: OpenAISettings, open_provider: OpenProvider
) -> None:
    openai_sim.runs.pace.mean_ms = 60_000
    provider = open_provider(msgspec.structs.replace(openai_settings, run_seconds=0.3))
    steps = provider.run(
        thread=await provider.start_thread({}), texts=(TEXT,), run="run-1", user=USER
    )
    submitted = await anext(steps)
    with pytest.raises(Unreachable) as caught:
        await anext(steps)
    assert (caught.value.code, caught.value.billed) == ("timeout", True)
    assert list(openai_sim.runs.live) == [submitted.response]


async def test_malformed_json_in_any_other_answer_is_not_billed(
    provider: OpenAIProvider, openai_sim: OpenAISimulator
) -> None:
    openai_sim.faults.add([Fault(match="POST /v1/conversations", kind="malformed_json")])
    with pytest.raises(Unreachable) as caught:
        await provider.start_thread({})
    assert (caught.value.code, caught.value.billed) == ("malformed", False)


async def test_other_calls_have_a_time_limit_of_their_own(
    openai_sim: OpenAISimulator, openai_settings: OpenAISettings, open_provider: OpenProvider
) -> None:
    provider = open_provider(msgspec.structs.replace(openai_settings, call_seconds=0.1))
    openai_sim.faults.add([Fault(match="*", kind="hang", times=0)])
    for call in (
        provider.start_thread({}),
        provider.retrieve("resp_1"),
        provider.items_after("conv_1", None),
    ):
        with pytest.raises(Unreachable) as caught:
            await call
        assert (caught.value.code, caught.value.billed) == ("timeout", False)
    with pytest.raises(Unreachable):
        await provider.cancel("resp_1")
    with pytest.raises(Unreachable):
        await provider.delete_item("conv_1", "msg_1")


@pytest.mark.parametrize(
    ("fields", "expected", "code"),
    [
        ({"code": "conversation_locked", "message": TEXT}, ThreadBusy, "conversation_locked"),
        ({"code": "rate_limit_exceeded", "message": TEXT}, RateLimited, "rate_limit_exceeded"),
        ({"error": {"code": "server_error", "message": TEXT}}, Unreachable, "server_error"),
        ({"message": TEXT}, Unreachable, "stream_error"),
    ],
)
async def test_an_error_event_takes_the_place_of_the_last_word(
    openai_settings: OpenAISettings,
    open_provider: OpenProvider,
    stack: AsyncExitStack,
    *,
    fields: dict[str, object],
    expected: type[ProviderError],
    code: str,
) -> None:
    script = Scripted(*events(CREATED, ("error", fields)), content_type="text/event-stream")
    settings = msgspec.structs.replace(openai_settings, mode="stream")
    provider = await scripted(script, settings, open_provider, stack)
    error = await failure_of(provider, "conv_1")
    assert (type(error), error.code, error.billed) == (expected, code, True)


async def test_missing_details_of_usage_are_zero(
    openai_settings: OpenAISettings, open_provider: OpenProvider, stack: AsyncExitStack
) -> None:
    usage = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    details = {"input_tokens_details": None, "output_tokens_details": {"reasoning_tokens": None}}
    part = {"type": "refusal", "refusal": "No puedo."}
    message = {"id": "msg_1", "type": "message", "content": [part]}
    done = {
        "id": "resp_1",
        "status": "completed",
        "output": [{"id": "rs_1", "type": "reasoning", "summary": []}, message],
        "usage": {**usage, **details},
    }
    script = Scripted(
        *events(CREATED, ("response.completed", {"response": done})),
        content_type="text/event-stream",
    )
    provider = await scripted(script, openai_settings, open_provider, stack)
    answer = await answer_to(provider, "conv_1")
    assert answer.usage is not None
    assert (answer.usage.total, answer.usage.cached, answer.usage.reasoning) == (7, 0, 0)
    assert (answer.text, answer.last_item) == ("No puedo.", "msg_1")
