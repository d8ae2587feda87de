"""A burst of messages is one turn: when it ends, and what it waits for (A4)."""

from __future__ import annotations

from app.aggregates import events as e
from tests.integration.turns.stage import Stage

ANA = "15550101001"


async def test_messages_in_quick_succession_get_one_answer(stage: Stage) -> None:
    outside = await stage.open(quiet_seconds=0.3)
    await outside.webhook("", senders=1)  # the gateway itself keeps the order
    said = [await outside.say(ANA, text) for text in ("hola", "somos dos", "para el sábado")]
    story = await stage.settled()
    assert await outside.reads(ANA) == ["Eco: " + " | ".join(one.text for one in said)]
    assert story.count(e.RunStarted) == 1


async def test_whoever_is_still_typing_is_waited_for(stage: Stage) -> None:
    outside = await stage.open(quiet_seconds=0.6, longest_seconds=10)
    await outside.say(ANA)
    await stage.has(e.MessageReceived)
    await outside.silence(ANA, 0.3)
    await outside.phone(ANA, "typing", status="recording")
    story = await stage.settled()
    typing, started = story.all(e.TypingObserved)[0], story.all(e.RunStarted)[0]
    assert started.at - typing.at >= 600_000
    assert started.at - story.all(e.MessageReceived)[0].at >= 850_000


async def test_typing_is_recorded_only_while_a_message_waits(stage: Stage) -> None:
    outside = await stage.open()
    await outside.phone(ANA, "typing")
    await outside.delivered()
    await outside.say(ANA)
    await outside.reads(ANA)
    await outside.phone(ANA, "typing")
    await outside.delivered()
    assert (await stage.settled()).count(e.TypingObserved) == 0


async def test_whoever_never_stops_writing_is_answered_all_the_same(stage: Stage) -> None:
    outside = await stage.open(quiet_seconds=0.5, longest_seconds=0.8)
    await outside.say(ANA)
    while not await outside.watch(ANA, 0.25):
        await outside.say(ANA)
    story = await stage.settled()
    first, started = story.all(e.MessageReceived)[0], story.all(e.RunStarted)[0]
    assert 800_000 <= started.at - first.at < 1_100_000


async def test_many_messages_are_answered_at_once(stage: Stage) -> None:
    outside = await stage.open(quiet_seconds=60, longest_seconds=60, most_messages=3)
    for _ in range(3):
        await outside.say(ANA)
    story = await stage.settled()
    assert story.all(e.RunStarted)[0].at - story.all(e.MessageReceived)[2].at < 2_000_000


async def test_a_message_that_waits_is_answered_after_a_restart(stage: Stage) -> None:
    outside = await stage.open(quiet_seconds=60, longest_seconds=60)
    await outside.say(ANA)
    await outside.delivered()
    await stage.stop_bot()
    await stage.start_bot()
    assert len(await outside.reads(ANA)) == 1
    assert (await stage.settled()).count(e.RunStarted) == 1


async def test_a_message_that_waits_is_answered_even_if_the_to_do_list_is_lost(
    stage: Stage,
) -> None:
    outside = await stage.open(quiet_seconds=60, longest_seconds=60)
    await outside.say(ANA)
    await outside.delivered()
    await stage.stop_bot()
    for name in ("todo.db", "views.db"):
        for path in (stage.directory / "data" / "default").glob(f"{name}*"):
            path.unlink()
    await stage.start_bot()
    assert len(await outside.reads(ANA)) == 1
    assert (await stage.settled()).count(e.RunStarted) == 1
