"""Handing an answer to the gateway: once, in parts, and never twice when nobody knows (A13)."""

from __future__ import annotations

import pytest

from app.aggregates import events as e
from app.conversation import delivering
from tests.integration.turns.judging import Story
from tests.integration.turns.outside import LISTS, SENDS
from tests.integration.turns.stage import Stage

ANA = "15550105001"
BEN = "15550105002"


async def answered(stage: Stage) -> Story:
    """Say something that is answered in the end, and return the log."""
    await stage.outside.say(ANA)
    await stage.outside.reads(ANA)
    return await stage.settled()


def adopted(story: Story) -> list[str]:
    """How each message that was sent was found out to be."""
    return [t.event.adopted for t in story.all(e.MessageSent) if isinstance(t.event, e.MessageSent)]


def failures(story: Story) -> list[str]:
    """Why parts were not sent."""
    found = (told.event for told in story.all(e.DeliveryFailed))
    return [event.code for event in found if isinstance(event, e.DeliveryFailed)]


async def test_a_gateway_that_is_asked_too_often_is_asked_later(stage: Stage) -> None:
    outside = await stage.open()
    await outside.break_whapi(SENDS, "status", status=429, retry_after=1.1)
    story = await answered(stage)
    failed, again = story.all(e.DeliveryFailed)[0], story.all(e.DeliveryStarted)[1]
    assert again.at - failed.at >= 1_100_000
    assert adopted(story) == [""]


async def test_an_error_of_the_gateway_is_looked_into_before_it_is_tried_again(
    stage: Stage,
) -> None:
    outside = await stage.open()
    await outside.break_whapi(SENDS, "status", status=500)
    story = await answered(stage)
    assert failures(story) == ["not_in_list"]
    assert story.count(e.DeliveryStarted) == 2


async def test_a_message_that_was_sent_though_nobody_said_so_is_known_by_its_echo(
    stage: Stage,
) -> None:
    outside = await stage.open()
    await outside.break_whapi(SENDS, "disconnect_after")
    story = await answered(stage)
    assert adopted(story) == ["echo"]
    assert story.count(e.DeliveryStarted) == 1


async def test_without_an_echo_the_gateways_list_tells(stage: Stage) -> None:
    outside = await stage.open()
    await outside.webhook("", echo=False, statuses=[])
    await outside.break_whapi(SENDS, "malformed_json")
    story = await answered(stage)
    assert adopted(story) == ["list"]
    assert story.count(e.DeliveryStarted) == 1


async def test_a_message_that_was_not_sent_in_time_is_sent_again(stage: Stage) -> None:
    outside = await stage.open()
    await outside.break_whapi(SENDS, "hang")
    story = await answered(stage)
    assert failures(story) == ["not_in_list"]
    started = story.all(e.DeliveryStarted)
    assert isinstance(started[0].event, e.DeliveryStarted)
    assert started[1].at > started[0].event.deadline, "not before the deadline"


async def test_the_same_answer_twice_is_not_taken_for_the_one_before(stage: Stage) -> None:
    outside = await stage.open(apology="Lo siento.")
    await outside.webhook("", echo=False, statuses=[])
    await outside.break_openai("POST /v1/responses", "status", status=401, times=2)
    await outside.say(ANA, expect="silence")
    assert await outside.reads(ANA) == ["Lo siento."]
    await outside.break_whapi(SENDS, "hang")
    await outside.say(ANA, expect="silence")
    assert await outside.reads(ANA, 2) == ["Lo siento."] * 2
    assert adopted(await stage.settled()) == ["", ""]


async def test_what_the_gateway_refuses_is_given_up_and_the_next_message_is_answered(
    stage: Stage,
) -> None:
    outside = await stage.open()
    await outside.break_whapi(SENDS, "status", status=403)
    lost = await outside.say(ANA, expect="silence")
    story = await stage.has(e.DeliveryFailed)
    assert failures(story) == ["http_403"]
    await outside.say(ANA, "otra cosa")
    (body,) = await outside.reads(ANA)
    assert lost.token not in body
    await stage.settled()


async def test_what_nobody_can_find_out_is_recorded_as_uncertain_and_not_sent_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "GIVE_UP", 0)
    outside = await stage.open()
    await outside.webhook("", echo=False, statuses=[])
    await outside.break_whapi(SENDS, "disconnect_after")
    await outside.break_whapi(LISTS, "status", status=503, times=0)
    await outside.say(ANA)
    story = await stage.has(e.DeliveryUncertain)
    assert story.count(e.DeliveryStarted) == 1
    await outside.mend()
    await outside.say(ANA, "otra cosa")
    await outside.reads(ANA, 2)
    assert (await stage.settled()).count(e.DeliveryUncertain) == 1


async def test_an_operator_may_want_the_uncertain_sent_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "GIVE_UP", 0)
    outside = await stage.open(resend_uncertain=True)
    await outside.break_whapi(SENDS, "disconnect")
    await outside.break_whapi(LISTS, "status", status=503, times=2)
    story = await answered(stage)
    assert story.count(e.DeliveryUncertain) == 0
    assert story.count(e.DeliveryStarted) == 2


async def test_an_echo_that_comes_while_the_list_cannot_be_read_is_enough(stage: Stage) -> None:
    outside = await stage.open()
    await outside.webhook("", echo=False, statuses=[])
    await outside.break_whapi(SENDS, "disconnect_after")
    await outside.break_whapi(LISTS, "status", status=503, times=0)
    await outside.say(ANA)
    await outside.reads(ANA)
    shown = (await outside.whapi_account()).chats[f"{ANA}@s.whatsapp.net"][0]
    echo = {
        "id": shown.id,
        "from_me": True,
        "type": "text",
        "chat_id": f"{ANA}@s.whatsapp.net",
        "timestamp": int(shown.received_at),
        "source": "api",
        "text": {"body": shown.body},
    }
    while not await outside.struck(LISTS):
        await stage.news()
    await outside.deliver(
        {"messages": [echo], "event": {"type": "messages", "event": "post"}, "channel_id": "X"}
    )
    assert adopted(await stage.settled()) == ["echo"]


async def test_a_part_in_doubt_holds_nobody_elses_turn(stage: Stage) -> None:
    outside = await stage.open(runs_at_once=1)
    await outside.webhook("", echo=False, statuses=[])
    await outside.break_whapi(SENDS, "disconnect_after")
    await outside.break_whapi(LISTS, "status", status=503, times=0)
    await outside.say(ANA)
    await outside.reads(ANA)
    while not await outside.struck(LISTS):
        await stage.news()
    await outside.say(BEN)
    await outside.reads(BEN)
    story = await stage.has(e.MessageSent)
    assert adopted(story) == [""], "Ben's, and Ana's is still in doubt"
    await outside.mend()
    story = await stage.settled()
    assert sorted(adopted(story)) == ["", "list"]
    assert story.count(e.DeliveryStarted) == 2


async def test_a_long_answer_comes_in_parts_in_order(stage: Stage) -> None:
    outside = await stage.open()
    said = await outside.say(ANA, " ".join(f"palabra{n}" for n in range(1000)))
    await outside.reads(ANA, 3)
    story = await stage.settled()
    bodies = await outside.reads(ANA, 3)
    assert " ".join(bodies) == f"Eco: {said.text}"
    assert max(map(len, bodies)) <= 4096
    assert story.count(e.MessageSent) == len(bodies)


async def test_a_part_in_doubt_holds_the_parts_after_it(stage: Stage) -> None:
    outside = await stage.open()
    await outside.break_whapi(SENDS, "disconnect", skip=1)
    said = await outside.say(ANA, " ".join(f"palabra{n}" for n in range(1000)))
    await stage.settled()
    assert " ".join(await outside.reads(ANA, 3)) == f"Eco: {said.text}"


async def test_statuses_in_any_order_change_nothing(stage: Stage) -> None:
    outside = await stage.open()
    await outside.webhook("", statuses=["read", "sent", "delivered"], scatter=0.1)
    story = await answered(stage)
    kinds = {
        t.event.status
        for t in story.all(e.MessageStatusChanged)
        if isinstance(t.event, e.MessageStatusChanged)
    }
    assert kinds == {"read", "sent", "delivered"}


async def test_typing_is_shown_while_the_model_thinks(stage: Stage) -> None:
    outside = await stage.open()
    await outside.pace(300)
    await outside.say(ANA)
    seen = await outside.presence(ANA, "")
    assert seen == "typing"
    await outside.reads(ANA)
    await stage.settled()
