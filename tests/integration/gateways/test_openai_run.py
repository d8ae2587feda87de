"""A run against OpenAI that goes well, or ends in a way that OpenAI reports."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import msgspec
import pytest

from app.conversation.ports import Answer, Running, Submitted, ThreadBusy
from app.gateways import OpenAIProvider, OpenAISettings
from app.simulators.faults import Fault
from app.simulators.openai import OpenAISimulator
from tests.integration.gateways.conftest import TEXT, USER, OpenProvider

RESPONSES = "POST /v1/responses"


async def steps_of(
    provider: OpenAIProvider, thread: str, *texts: str, run: str = "run-1"
) -> list[Submitted | Answer]:
    async with aclosing(
        provider.run(thread=thread, texts=texts or (TEXT,), run=run, user=USER)
    ) as steps:
        return [step async for step in steps]


async def answer_to(provider: OpenAIProvider, thread: str, *texts: str) -> Answer:
    answer = (await steps_of(provider, thread, *texts))[-1]
    assert isinstance(answer, Answer)
    return answer


def reported(sim: OpenAISimulator) -> int:
    return sim.state.reported.total_tokens


async def test_a_run_is_submitted_and_then_answered(
    either: OpenAIProvider, openai_sim: OpenAISimulator
) -> None:
    thread = await either.start_thread({"user": USER})
    submitted, answer = await steps_of(either, thread, TEXT, "¿y tú?")
    assert isinstance(submitted, Submitted)
    assert isinstance(answer, Answer)
    assert answer.response == submitted.response
    assert (answer.status, answer.code) == ("completed", "")
    assert answer.text == f"Eco: {TEXT} | ¿y tú?"
    assert answer.model == "gpt-5.4-mini"
    assert answer.usage is not None
    assert answer.usage.total == answer.usage.input + answer.usage.output == reported(openai_sim)


async def test_the_last_item_of_an_answer_is_the_newest_of_the_conversation(
    either: OpenAIProvider,
) -> None:
    thread = await either.start_thread({})
    first = await answer_to(either, thread)
    assert (await either.items_after(thread, None))[-1] == first.last_item
    second = await answer_to(either, thread)
    newer = await either.items_after(thread, first.last_item)
    assert len(newer) == 2
    assert newer[-1] == second.last_item
    assert await either.items_after(thread, second.last_item) == ()


async def test_what_is_asked_of_openai_is_what_the_settings_say(
    openai_sim: OpenAISimulator, openai_settings: OpenAISettings, open_provider: OpenProvider
) -> None:
    provider = open_provider(
        msgspec.structs.replace(
            openai_settings,
            instructions="Sé breve.",
            temperature=0.2,
            max_output_tokens=500,
            compact_threshold=100_000,
        )
    )
    answer = await answer_to(provider, await provider.start_thread({"bot": "b"}))
    kept = openai_sim.state.responses[answer.response]
    assert (kept.background, kept.store, kept.truncation) == (True, True, "auto")
    assert (kept.instructions, kept.max_output_tokens) == ("Sé breve.", 500)
    assert (kept.metadata, kept.safety_identifier) == ({"run": "run-1"}, USER)


async def test_the_response_id_comes_while_the_model_still_works(
    either: OpenAIProvider, openai_sim: OpenAISimulator
) -> None:
    openai_sim.runs.pace.mean_ms = 100
    thread = await either.start_thread({})
    run = either.run(thread=thread, texts=(TEXT,), run="run-1", user=USER)
    async with aclosing(run) as steps:
        submitted = await anext(steps)
        assert await either.retrieve(submitted.response) == Running(response=submitted.response)
        answer = await anext(steps)
    assert await either.retrieve(submitted.response) == answer


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ({"kind": "fail", "code": "server_error"}, "failed", "server_error"),
        ({"kind": "incomplete"}, "incomplete", "max_output_tokens"),
    ],
)
async def test_a_failed_or_incomplete_run_carries_its_usage(
    either: OpenAIProvider,
    openai_sim: OpenAISimulator,
    fault: dict[str, str],
    status: str,
    code: str,
) -> None:
    openai_sim.faults.add([msgspec.convert({"match": RESPONSES, **fault}, Fault)])
    answer = await answer_to(either, await either.start_thread({}))
    assert (answer.status, answer.code) == (status, code)
    assert answer.usage is not None
    assert answer.usage.total == reported(openai_sim) > 0


async def test_a_run_that_was_not_billed_has_no_usage(
    either: OpenAIProvider, openai_sim: OpenAISimulator
) -> None:
    openai_sim.faults.add([Fault(match=RESPONSES, kind="fail", bill=False, message=TEXT)])
    answer = await answer_to(either, await either.start_thread({}))
    assert (answer.status, answer.usage, answer.last_item) == ("failed", None, None)


async def test_a_cancelled_run_ends_as_cancelled_with_its_usage(
    provider: OpenAIProvider, openai_sim: OpenAISimulator
) -> None:
    openai_sim.runs.pace.mean_ms = 60_000
    thread = await provider.start_thread({})
    run = provider.run(thread=thread, texts=(TEXT,), run="run-1", user=USER)
    async with aclosing(run) as steps:
        submitted = await anext(steps)
        await provider.cancel(submitted.response)
        answer = await anext(steps)
    assert isinstance(answer, Answer)
    assert answer.status == "cancelled"
    assert answer.usage is not None
    assert answer.usage.total == reported(openai_sim)


async def test_a_second_run_in_a_busy_conversation_is_told_so_and_leaves_the_first_alone(
    either: OpenAIProvider, openai_sim: OpenAISimulator
) -> None:
    openai_sim.runs.pace.mean_ms = 100
    thread = await either.start_thread({})
    run = either.run(thread=thread, texts=(TEXT,), run="run-1", user=USER)
    async with aclosing(run) as steps:
        await anext(steps)
        with pytest.raises(ThreadBusy) as caught:
            await steps_of(either, thread, run="run-2")
        assert (caught.value.code, caught.value.billed) == ("conversation_locked", False)
        answer = await anext(steps)
    assert isinstance(answer, Answer)
    assert answer.status == "completed"


async def test_a_caller_that_leaves_a_streamed_run_ends_it(
    openai_sim: OpenAISimulator, openai_settings: OpenAISettings, open_provider: OpenProvider
) -> None:
    openai_sim.runs.pace.mean_ms = 60_000
    provider = open_provider(msgspec.structs.replace(openai_settings, mode="stream"))
    thread = await provider.start_thread({})
    async with aclosing(
        provider.run(thread=thread, texts=(TEXT,), run="run-1", user=USER)
    ) as steps:
        submitted = await anext(steps)
    assert await openai_sim.runs.changed.until(lambda: not openai_sim.runs.live, 5)
    answer = await provider.retrieve(submitted.response)
    assert isinstance(answer, Answer)
    assert answer.status == "cancelled"


async def test_the_time_that_the_caller_takes_is_not_interrupted(
    openai_sim: OpenAISimulator, openai_settings: OpenAISettings, open_provider: OpenProvider
) -> None:
    """The total time-out must not cancel whatever the caller does between two steps."""
    provider = open_provider(msgspec.structs.replace(openai_settings, run_seconds=0.2))
    thread = await provider.start_thread({})
    loop = asyncio.get_running_loop()
    async with aclosing(
        provider.run(thread=thread, texts=(TEXT,), run="run-1", user=USER)
    ) as steps:
        submitted = await anext(steps)
        past_the_deadline = loop.create_future()
        loop.call_later(0.4, past_the_deadline.set_result, None)
        await past_the_deadline
    assert isinstance(submitted, Submitted)


async def test_a_long_burst_fits_into_twenty_items_and_loses_no_text(
    provider: OpenAIProvider, openai_sim: OpenAISimulator
) -> None:
    texts = tuple(f"mensaje {number}." for number in range(50))
    thread = await provider.start_thread({})
    answer = await answer_to(provider, thread, *texts)
    assert all(text in answer.text for text in texts)
    assert len(await provider.items_after(thread, None)) <= 21


async def test_seventy_five_runs_at_once_are_all_answered(
    either: OpenAIProvider, openai_sim: OpenAISimulator
) -> None:
    openai_sim.runs.pace.mean_ms = 50
    threads = await asyncio.gather(*(either.start_thread({}) for _ in range(75)))
    answers = await asyncio.gather(*(answer_to(either, thread) for thread in threads))
    assert {answer.status for answer in answers} == {"completed"}
    totals = [answer.usage.total for answer in answers if answer.usage]
    assert sum(totals) == reported(openai_sim)


async def test_one_run_after_the_other_uses_one_connection(either: OpenAIProvider) -> None:
    thread = await either.start_thread({})
    for _ in range(5):
        await answer_to(either, thread)
    pool = either._client._client._transport._pool  # type: ignore[attr-defined]
    assert len(pool.connections) == 1


async def test_pages_of_items_are_read_to_the_end(
    provider: OpenAIProvider, openai_sim: OpenAISimulator
) -> None:
    thread = await provider.start_thread({})
    kept = openai_sim.state.conversation(thread)
    kept.add({"id": f"msg_{number}", "content": []} for number in range(250))
    assert await provider.items_after(thread, None) == tuple(f"msg_{n}" for n in range(250))
    assert await provider.items_after(thread, "msg_99") == tuple(
        f"msg_{n}" for n in range(100, 250)
    )


async def test_an_item_can_be_deleted_twice(provider: OpenAIProvider) -> None:
    thread = await provider.start_thread({})
    await answer_to(provider, thread)
    oldest, newest = await provider.items_after(thread, None)
    await provider.delete_item(thread, newest)
    await provider.delete_item(thread, newest)
    assert await provider.items_after(thread, None) == (oldest,)
    await provider.delete_item("conv_gone", oldest)


async def test_what_cannot_be_cancelled_is_left_alone(either: OpenAIProvider) -> None:
    answer = await answer_to(either, await either.start_thread({}))
    await either.cancel(answer.response)
    await either.cancel("resp_gone")
    assert await either.retrieve(answer.response) == answer
