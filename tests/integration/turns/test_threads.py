"""The conversation at OpenAI: busy, lost, too old, emptied (A7)."""

from __future__ import annotations

from app.aggregates import events as e
from tests.integration.turns.judging import Story
from tests.integration.turns.outside import RESPONSES
from tests.integration.turns.stage import Stage

ANA = "15550103001"


def threads(story: Story) -> list[tuple[str, str]]:
    """What happened to the conversation, with the reasons."""
    return [
        (type(told.event).__name__, told.event.reason)
        for told in story.all(e.ThreadStarted, e.ThreadReset)
        if isinstance(told.event, e.ThreadStarted | e.ThreadReset)
    ]


async def talked(stage: Stage, **settings: object) -> str:
    """Let somebody be answered once; return the conversation."""
    outside = await stage.open(**settings)
    await outside.say(ANA)
    await outside.reads(ANA)
    started = (await stage.settled()).all(e.ThreadStarted)[0].event
    assert isinstance(started, e.ThreadStarted)
    return started.thread


async def test_one_person_keeps_one_conversation(stage: Stage) -> None:
    await talked(stage)
    await stage.outside.say(ANA, "y otra cosa")
    await stage.outside.reads(ANA, 2)
    assert threads(await stage.settled()) == [("ThreadStarted", "first_time")]


async def test_a_busy_conversation_is_waited_for(stage: Stage) -> None:
    outside = await stage.open()
    await outside.break_openai(RESPONSES, "locked", times=3)
    await outside.say(ANA)
    await outside.reads(ANA)
    story = await stage.settled()
    assert story.count(e.RunStarted) == 1
    assert story.count(e.RunFailed, e.RunCancelled) == 0


async def test_a_conversation_that_stays_busy_puts_the_turn_back_without_blame(
    stage: Stage,
) -> None:
    outside = await stage.open(busy_seconds=0.05, attempts=1)
    await outside.break_openai(RESPONSES, "locked", times=3)
    await outside.say(ANA)
    story = await stage.has(e.RunCancelled)
    ended = story.all(e.RunCancelled)[0].event
    assert isinstance(ended, e.RunCancelled)
    assert ended.reason == "thread_busy"
    await outside.mend()
    await outside.reads(ANA)
    assert (await stage.settled()).count(e.TurnParked) == 0


async def test_a_lost_conversation_is_replaced_and_the_message_answered(stage: Stage) -> None:
    conversation = await talked(stage)
    outside = stage.outside
    await outside.lose(conversation)
    await outside.say(ANA, "¿seguís ahí?")
    await outside.reads(ANA, 2)
    story = await stage.settled()
    assert threads(story) == [
        ("ThreadStarted", "first_time"),
        ("ThreadReset", "gone"),
        ("ThreadStarted", "gone"),
    ]
    left = story.all(e.ThreadReset)[0].event
    counted = story.all(e.TokensIncremented)[0].event
    assert isinstance(left, e.ThreadReset)
    assert isinstance(counted, e.TokensIncremented)
    assert left.left_behind == counted.total
    state = next(iter(story.states.values()))
    last = story.all(e.TokensIncremented)[1].event
    assert isinstance(last, e.TokensIncremented)
    assert state.thread is not None
    assert state.thread.tokens == last.total


async def test_a_conversation_that_is_lost_again_at_once_counts_as_a_failure(stage: Stage) -> None:
    outside = await stage.open()
    await outside.break_openai(RESPONSES, "conversation_lost", times=2)
    await outside.say(ANA)
    await outside.reads(ANA)
    story = await stage.settled()
    assert story.count(e.RunFailed) == 1
    assert story.count(e.RunCompleted) == 1


async def test_a_conversation_older_than_the_limit_is_renewed(stage: Stage) -> None:
    await talked(stage, thread_days=1e-7)  # 9 ms
    await stage.outside.say(ANA, "otra vez")
    await stage.outside.reads(ANA, 2)
    assert threads(await stage.settled()) == [
        ("ThreadStarted", "first_time"),
        ("ThreadReset", "expired"),
        ("ThreadStarted", "expired"),
    ]
