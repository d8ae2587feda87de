"""A stream that breaks off: a background run is followed by polling, a streamed one is lost."""

from __future__ import annotations

import msgspec
import pytest

from app.conversation.ports import Answer, Submitted, Unreachable
from app.gateways import OpenAIProvider, OpenAISettings
from app.simulators.faults import Fault
from app.simulators.openai import OpenAISimulator
from tests.integration.gateways.conftest import TEXT, USER, OpenProvider
from tests.integration.gateways.test_openai_faults import failure_of
from tests.integration.gateways.test_openai_run import (
    RESPONSES,
    answer_to,
    reported,
    steps_of,
)

RETRIEVE = "GET /v1/responses/*"


@pytest.mark.parametrize("abort", [False, True])
@pytest.mark.parametrize("shown", [1, 2, 5])
async def test_a_background_run_whose_stream_is_cut_is_answered_all_the_same(
    provider: OpenAIProvider, openai_sim: OpenAISimulator, shown: int, *, abort: bool
) -> None:
    thread = await provider.start_thread({})
    openai_sim.faults.add([Fault(match=RESPONSES, kind="cut_stream", events=shown, abort=abort)])
    submitted, answer = await steps_of(provider, thread)
    assert isinstance(answer, Answer)
    assert (answer.response, answer.status) == (submitted.response, "completed")
    assert answer.text == f"Eco: {TEXT}"
    assert answer.usage is not None
    assert answer.usage.total == reported(openai_sim)


async def test_a_background_run_that_failed_behind_a_cut_stream_is_reported_as_failed(
    provider: OpenAIProvider, openai_sim: OpenAISimulator
) -> None:
    thread = await provider.start_thread({})
    openai_sim.faults.add([Fault(match=RESPONSES, kind="cut_stream", bill=False)])
    answer = await answer_to(provider, thread)
    assert (answer.status, answer.usage, reported(openai_sim)) == ("failed", None, 0)


@pytest.mark.parametrize("abort", [False, True])
async def test_a_streamed_run_that_is_cut_may_be_billed(
    openai_sim: OpenAISimulator,
    openai_settings: OpenAISettings,
    open_provider: OpenProvider,
    *,
    abort: bool,
) -> None:
    provider = open_provider(msgspec.structs.replace(openai_settings, mode="stream"))
    thread = await provider.start_thread({})
    openai_sim.faults.add([Fault(match=RESPONSES, kind="cut_stream", abort=abort)])
    steps = provider.run(thread=thread, texts=(TEXT,), run="run-1", user=USER)
    assert isinstance(await anext(steps), Submitted)
    with pytest.raises(Unreachable) as caught:
        await anext(steps)
    assert (caught.value.code, caught.value.billed) == ("cut_stream", True)


async def test_a_stream_cut_before_the_response_id_may_be_billed(
    either: OpenAIProvider, openai_sim: OpenAISimulator
) -> None:
    thread = await either.start_thread({})
    openai_sim.faults.add([Fault(match=RESPONSES, kind="cut_stream", events=0)])
    error = await failure_of(either, thread)
    assert (type(error), error.code, error.billed) == (Unreachable, "cut_stream", True)


async def test_polling_outlives_errors_of_the_polls(
    provider: OpenAIProvider, openai_sim: OpenAISimulator
) -> None:
    thread = await provider.start_thread({})
    openai_sim.faults.add(
        [
            Fault(match=RESPONSES, kind="cut_stream"),
            Fault(match=RETRIEVE, kind="status", status=503),
            Fault(match=RETRIEVE, kind="status", status=429, retry_after=0),
            Fault(match=RETRIEVE, kind="malformed_json"),
        ]
    )
    assert (await answer_to(provider, thread)).status == "completed"


async def test_polling_ends_with_the_total_time(
    openai_sim: OpenAISimulator, openai_settings: OpenAISettings, open_provider: OpenProvider
) -> None:
    provider = open_provider(msgspec.structs.replace(openai_settings, run_seconds=0.4))
    thread = await provider.start_thread({})
    openai_sim.faults.add(
        [
            Fault(match=RESPONSES, kind="cut_stream"),
            Fault(match=RETRIEVE, kind="status", status=500, times=0),
        ]
    )
    error = await failure_of(provider, thread)
    assert (type(error), error.code, error.billed) == (Unreachable, "timeout", True)


async def test_polling_ends_at_once_if_the_response_is_gone(
    provider: OpenAIProvider, openai_sim: OpenAISimulator
) -> None:
    thread = await provider.start_thread({})
    openai_sim.faults.add(
        [
            Fault(match=RESPONSES, kind="cut_stream"),
            Fault(match=RETRIEVE, kind="status", status=404),
        ]
    )
    error = await failure_of(provider, thread)
    assert (type(error), error.code, error.billed) == (Unreachable, "cut_stream", True)


async def test_malformed_json_in_the_stream_of_a_background_run_costs_only_a_poll(
    provider: OpenAIProvider, openai_sim: OpenAISimulator
) -> None:
    thread = await provider.start_thread({})
    openai_sim.faults.add([Fault(match=RESPONSES, kind="malformed_json")])
    assert (await answer_to(provider, thread)).text == f"Eco: {TEXT}"


async def test_malformed_json_in_a_streamed_run_may_be_billed(
    openai_sim: OpenAISimulator, openai_settings: OpenAISettings, open_provider: OpenProvider
) -> None:
    provider = open_provider(msgspec.structs.replace(openai_settings, mode="stream"))
    thread = await provider.start_thread({})
    openai_sim.faults.add([Fault(match=RESPONSES, kind="malformed_json")])
    error = await failure_of(provider, thread)
    assert (type(error), error.code, error.billed) == (Unreachable, "malformed", True)
