"""One turn at a time for each person, in order; many people at once (A5)."""

from __future__ import annotations

import pytest

from app.aggregates import events as e
from app.aggregates.user_state import BLANK, evolve
from tests.integration.turns.judging import TOKEN, Story
from tests.integration.turns.stage import Stage

PHONES = [f"1555010200{n}" for n in range(1, 6)]
ANA = PHONES[0]


def runs_that_overlap(story: Story) -> list[str]:
    """Runs that began while another, or its delivery, was open on the same stream."""
    found = []
    states = dict.fromkeys((told.stream for told in story.told), BLANK)
    for told in story.told:
        before = states[told.stream]
        if isinstance(told.event, e.RunStarted) and (before.run or before.delivery):
            found.append(told.event.run)
        if told.stream.startswith("user/"):
            states[told.stream] = evolve(before, told.event, told.version, told.at)
    return found


async def test_messages_that_come_during_a_run_make_the_next_turn(stage: Stage) -> None:
    outside = await stage.open()
    await outside.webhook("", senders=1)
    await outside.pace(400)
    first = await outside.say(ANA, "primero")
    await outside.openai_waits("active=1")
    rest = [await outside.say(ANA, "segundo"), await outside.say(ANA, "tercero")]
    story = await stage.settled()
    assert await outside.reads(ANA) == [
        f"Eco: {first.text}",
        f"Eco: {rest[0].text} | {rest[1].text}",
    ]
    assert runs_that_overlap(story) == []


@pytest.mark.parametrize("mode", ["background", "stream"])
async def test_five_people_are_answered_at_once_and_each_in_order(stage: Stage, mode: str) -> None:
    outside = await stage.open(quiet_seconds=0.02, openai_mode=mode)
    await outside.webhook("", senders=1)  # the gateway itself keeps the order
    await outside.pace(800)
    said: dict[str, list[str]] = {phone: [] for phone in PHONES}
    for count in range(4):
        for phone in PHONES:
            said[phone].append((await outside.say(phone)).token)
        if count == 0:
            await outside.openai_waits("active=5")
    story = await stage.settled()
    for phone in PHONES:
        read = [token for body in await outside.reads(phone) for token in TOKEN.findall(body)]
        assert read == said[phone]
    assert runs_that_overlap(story) == []


async def test_no_more_runs_at_once_than_the_settings_say(stage: Stage) -> None:
    outside = await stage.open(runs_at_once=2)
    await outside.pace(150)
    most = 0
    for phone in PHONES:
        await outside.say(phone)
    while stage.story().count(e.RunCompleted) < len(PHONES):
        active = (await outside.openai_waits("active=0"))["active"]
        assert isinstance(active, list)
        most = max(most, len(active))
        await stage.news()
    await stage.settled()
    assert most == 2
