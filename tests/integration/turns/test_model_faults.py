"""OpenAI fails in every way it can: what is tried again, what it cost, what people read."""

from __future__ import annotations

import pytest

from app.aggregates import events as e
from tests.integration.turns.judging import Story
from tests.integration.turns.outside import RESPONSES
from tests.integration.turns.stage import Stage

ANA = "15550104001"
SORRY = "Perdón, prueba más tarde."
both_modes = pytest.mark.parametrize("mode", ["background", "stream"])


def failures(story: Story) -> list[str]:
    """The codes of the attempts that failed."""
    return [t.event.code for t in story.all(e.RunFailed) if isinstance(t.event, e.RunFailed)]


async def answered(stage: Stage) -> Story:
    """Say something that is answered in the end, and return the log."""
    await stage.outside.say(ANA)
    await stage.outside.reads(ANA)
    story = await stage.settled()
    assert story.count(e.TurnParked) == 0
    return story


async def test_a_demand_to_wait_is_obeyed(stage: Stage) -> None:
    outside = await stage.open()
    await outside.break_openai(RESPONSES, "status", status=429, retry_after=1.2)
    story = await answered(stage)
    failed, again = story.all(e.RunFailed)[0], story.all(e.RunStarted)[1]
    assert again.at - failed.at >= 1_200_000
    assert story.count(e.UsageUnknown) == 0


async def test_a_limit_without_a_time_is_tried_again_soon(stage: Stage) -> None:
    outside = await stage.open()
    await outside.break_openai(RESPONSES, "status", status=429, code="rate_limit_exceeded")
    story = await answered(stage)
    assert failures(story) == ["rate_limit_exceeded"]


@pytest.mark.parametrize("status", [500, 502, 503])
@both_modes
async def test_a_server_error_is_tried_again(stage: Stage, status: int, mode: str) -> None:
    outside = await stage.open(openai_mode=mode)
    await outside.break_openai(RESPONSES, "status", status=status, times=2)
    story = await answered(stage)
    assert failures(story) == [f"http_{status}"] * 2
    started = (told.event for told in story.all(e.RunStarted))
    assert [run.attempt for run in started if isinstance(run, e.RunStarted)] == [1, 2, 3]


@both_modes
async def test_a_request_that_is_never_answered_is_given_up_in_time(
    stage: Stage, mode: str
) -> None:
    outside = await stage.open(openai_mode=mode, run_seconds=0.5)
    await outside.break_openai(RESPONSES, "hang")
    story = await answered(stage)
    assert failures(story) == ["timeout"]
    assert story.count(e.UsageUnknown) == 1


@both_modes
async def test_a_connection_that_breaks_before_the_answer_leaves_the_usage_unknown(
    stage: Stage, mode: str
) -> None:
    outside = await stage.open(openai_mode=mode)
    await outside.break_openai(RESPONSES, "disconnect_after")
    story = await answered(stage)
    assert story.count(e.UsageUnknown) == 1
    conversation = story.all(e.ThreadStarted)[0].event
    assert isinstance(conversation, e.ThreadStarted)
    token = next(iter(outside.asked))
    items = [item for item in await outside.items(conversation.thread) if token in str(item)]
    assert len(items) == 2, "the question and the answer, each once"


async def test_what_a_lost_run_left_is_trimmed_even_if_that_cannot_be_done_at_once(
    stage: Stage,
) -> None:
    outside = await stage.open()
    await outside.break_openai(RESPONSES, "disconnect_after")
    await outside.break_openai("GET /v1/conversations/*/items", "status", status=500)
    story = await answered(stage)
    conversation = story.all(e.ThreadStarted)[0].event
    assert isinstance(conversation, e.ThreadStarted)
    token = next(iter(outside.asked))
    items = [item for item in await outside.items(conversation.thread) if token in str(item)]
    assert len(items) == 2


@pytest.mark.parametrize("bill", [True, False])
@pytest.mark.parametrize("abort", [True, False])
@both_modes
async def test_a_cut_stream_costs_what_it_cost(
    stage: Stage, mode: str, *, bill: bool, abort: bool
) -> None:
    outside = await stage.open(openai_mode=mode)
    await outside.pace(60)
    await outside.break_openai(RESPONSES, "cut_stream", bill=bill, abort=abort, events=3)
    story = await answered(stage)
    account = await outside.openai_account()
    assert story.count(e.TokensIncremented) == sum(r.usage is not None for r in account.responses)
    assert len(account.responses) == (1 if bill else 2)


@both_modes
async def test_an_answer_that_is_not_json_is_found_again(stage: Stage, mode: str) -> None:
    outside = await stage.open(openai_mode=mode)
    await outside.break_openai(RESPONSES, "malformed_json")
    story = await answered(stage)
    assert story.count(e.RunCompleted) == 1


async def test_a_conversation_whose_creation_fails_is_created_later(stage: Stage) -> None:
    outside = await stage.open()
    await outside.break_openai("POST /v1/conversations", "malformed_json")
    await outside.break_openai("POST /v1/conversations", "status", status=500)
    assert failures(await answered(stage)) == ["malformed", "http_500"]


@both_modes
async def test_a_failed_response_is_paid_for_and_tried_again(stage: Stage, mode: str) -> None:
    outside = await stage.open(openai_mode=mode)
    await outside.break_openai(RESPONSES, "fail", code="server_error")
    story = await answered(stage)
    assert failures(story) == ["server_error"]
    assert story.count(e.TokensIncremented) == 2


@both_modes
async def test_half_an_answer_is_an_answer_and_is_paid_for(stage: Stage, mode: str) -> None:
    outside = await stage.open(openai_mode=mode)
    await outside.break_openai(RESPONSES, "incomplete")
    said = await outside.say(ANA, "x" * 40, expect="maybe")
    (body,) = await outside.reads(ANA)
    assert f"Eco: {said.text}".startswith(body)
    story = await stage.settled()
    assert story.count(e.TokensIncremented) == story.count(e.RunCompleted) == 1


async def test_three_failures_are_one_apology_and_the_next_message_is_a_new_turn(
    stage: Stage,
) -> None:
    outside = await stage.open(apology=SORRY)
    await outside.break_openai(RESPONSES, "status", status=500, times=3)
    await outside.say(ANA, expect="silence")
    assert await outside.reads(ANA) == [SORRY]
    again = await outside.say(ANA, "¿y ahora?")
    assert await outside.reads(ANA, 2) == [SORRY, f"Eco: {again.text}"]
    story = await stage.settled()
    assert len(failures(story)) == 3
    (parked,) = story.all(e.TurnParked)
    assert isinstance(parked.event, e.TurnParked)
    assert (parked.event.reason, parked.event.attempts) == ("failed", 3)


@pytest.mark.parametrize("status", [400, 401])
async def test_what_openai_refuses_for_good_is_not_tried_again(stage: Stage, status: int) -> None:
    outside = await stage.open(apology=SORRY)
    await outside.break_openai(RESPONSES, "status", status=status)
    await outside.say(ANA, expect="silence")
    assert await outside.reads(ANA) == [SORRY]
    story = await stage.settled()
    assert story.count(e.RunStarted) == story.count(e.TurnParked) == 1


async def test_an_outage_of_everything_still_ends_in_an_apology(stage: Stage) -> None:
    outside = await stage.open(apology=SORRY, run_seconds=0.3)
    for count in (1, 2):
        await outside.say(ANA)
        await outside.reads(ANA, count)
    await outside.break_openai("*", "disconnect", times=0)
    await outside.say(ANA, expect="silence")
    assert (await outside.reads(ANA, 3))[2] == SORRY
    await outside.mend()
    story = await stage.settled()
    assert failures(story) == ["disconnected"] * 3
    assert story.count(e.UsageUnknown) == 1, "the others did not get as far as to ask"


async def test_a_run_that_cannot_be_asked_about_is_adopted_when_it_can(stage: Stage) -> None:
    outside = await stage.open(run_seconds=0.5)
    await outside.break_openai(RESPONSES, "cut_stream", events=2)
    await outside.break_openai("GET /v1/responses/*", "status", status=503, times=0)
    await outside.say(ANA)
    await stage.has(e.RunSubmitted)
    await outside.silence(ANA, 1.0)
    await outside.mend()
    await outside.reads(ANA)
    story = await stage.settled()
    assert story.count(e.RunStarted) == 1
    assert story.count(e.UsageUnknown) == 0


async def test_a_provider_that_is_down_is_asked_now_and_then_and_used_again(stage: Stage) -> None:
    outside = await stage.open(attempts=100)
    breaker = stage.bot.turns.breaker
    breaker._cool_down = 0.3
    await outside.break_openai("*", "status", status=503, times=0)
    phones = [f"1555010410{n}" for n in range(6)]
    for phone in phones:
        await outside.say(phone)
    await stage.until(lambda: breaker.state != "closed")
    failed = stage.story().count(e.RunFailed)
    await outside.silence(phones[0], 0.5)
    assert stage.story().count(e.RunFailed) <= failed + 6 + 3, "one probe a cool-down"
    await outside.mend()
    for phone in phones:
        await outside.reads(phone)
    assert breaker.state == "closed"
    await stage.settled()
