"""What people and the gateway say, as it comes: changed, taken back, twice, unknown, not for us."""

from __future__ import annotations

import msgspec
import pytest

from app.aggregates import events as e
from app.aggregates.gateway import GATEWAY_STREAM
from app.aggregates.gateway_events import (
    EarlyDelete,
    EarlyDeleteApplied,
    ItemRejected,
    OtherRecorded,
)
from tests.integration.turns.outside import Json
from tests.integration.turns.stage import Stage

ANA = "15550106001"
GROUP = "120363000000000001@g.us"


def envelope(*messages: Json, kind: str = "messages", method: str = "post") -> Json:
    """A webhook's body with these items."""
    return {kind: messages, "event": {"type": kind, "event": method}, "channel_id": "X"}


def text(phone: str, message_id: str, body: str, **more: object) -> Json:
    """A text message as the gateway sends it."""
    return {
        "id": message_id,
        "from_me": False,
        "type": "text",
        "chat_id": f"{phone}@s.whatsapp.net",
        "timestamp": 1_790_000_000,
        "source": "mobile",
        "text": {"body": body},
        "from": phone,
        "from_name": "Ana",
        **more,
    }


@pytest.mark.parametrize("form", ["patch", "put", "action"])
async def test_an_edit_before_the_run_is_what_is_answered(stage: Stage, form: str) -> None:
    outside = await stage.open(quiet_seconds=0.4)
    said = await outside.say(ANA, "mesa para dos")
    await outside.delivered()
    await outside.edit(said, "mesa para tres", form)
    story = await stage.settled()
    assert await outside.reads(ANA) == [f"Eco: mesa para tres {said.token}"]
    assert story.count(e.MessageEdited) == 1


@pytest.mark.parametrize("form", ["delete", "action"])
async def test_what_is_taken_back_before_the_run_is_not_answered(stage: Stage, form: str) -> None:
    outside = await stage.open(quiet_seconds=0.4)
    said = await outside.say(ANA, "esto no")
    await outside.say(ANA, "esto sí")
    await outside.delivered()
    await outside.take_back(said, form)
    story = await stage.settled()
    assert len(await outside.reads(ANA)) == 1
    assert story.count(e.MessageDeleted) == 1


async def test_a_turn_of_which_all_was_taken_back_is_none(stage: Stage) -> None:
    outside = await stage.open(quiet_seconds=0.4)
    said = await outside.say(ANA)
    await outside.delivered()
    await outside.take_back(said)
    await outside.delivered()
    await outside.silence(ANA, 0.6)
    assert (await stage.settled()).count(e.RunStarted) == 0


async def test_an_edit_that_comes_before_its_message_is_used(stage: Stage) -> None:
    outside = await stage.open()
    token = outside.token(ANA)
    edited = text(ANA, "early-edit-1", f"corregido {token}")
    await outside.deliver(envelope(edited, method="put"))
    await outside.delivered()
    await outside.deliver(envelope(text(ANA, "early-edit-1", f"original {token}")))
    assert await outside.reads(ANA) == [f"Eco: corregido {token}"]
    await stage.settled()


async def test_a_delete_that_comes_before_its_message_is_applied(stage: Stage) -> None:
    outside = await stage.open()
    token = outside.token(ANA, "silence")
    await outside.deliver(
        {
            "messages_removed": ["early-delete-1"],
            "event": {"type": "messages", "event": "delete"},
            "channel_id": "X",
        }
    )
    await outside.delivered()
    await outside.deliver(envelope(text(ANA, "early-delete-1", f"no {token}")))
    await outside.delivered()
    await outside.silence(ANA, 0.4)
    story = await stage.settled()
    assert story.count(EarlyDelete) == story.count(EarlyDeleteApplied) == 1
    assert story.count(e.RunStarted) == 0


async def test_a_human_from_the_bots_own_phone_is_recorded_and_never_answered(
    stage: Stage,
) -> None:
    outside = await stage.open()
    await outside.say(ANA)
    await outside.reads(ANA)
    await outside.phone(ANA, "agent", text="le atiendo yo")
    await outside.delivered()
    await outside.silence(ANA, 0.3)
    story = await stage.settled()
    assert story.count(e.HumanMessageSent) == story.count(e.RunStarted) == 1


async def test_the_bots_own_sends_are_not_taken_for_a_humans(stage: Stage) -> None:
    outside = await stage.open()
    for count in (1, 2, 3):
        await outside.say(ANA)
        await outside.reads(ANA, count)
    await outside.delivered()
    story = await stage.settled()
    assert story.count(e.MessageSent) == 3
    assert story.count(e.HumanMessageSent) == 0


async def test_a_message_delivered_again_and_as_another_event_is_answered_once(
    stage: Stage,
) -> None:
    outside = await stage.open(quiet_seconds=0.05)
    token = outside.token(ANA)
    message = text(ANA, "again-1", f"hola {token}")
    body = envelope(message, message)
    for _ in range(3):
        await outside.deliver(body)
    await outside.reads(ANA)
    await outside.deliver(envelope(message))
    await outside.delivered()
    await outside.silence(ANA, 0.3)
    story = await stage.settled()
    assert story.count(e.MessageReceived) == story.count(e.RunStarted) == 1


async def test_duplicates_are_recognised_after_a_restart(stage: Stage) -> None:
    outside = await stage.open()
    token = outside.token(ANA)
    body = envelope(text(ANA, "restart-1", f"hola {token}"))
    await outside.deliver(body)
    await outside.reads(ANA)
    await stage.settled()
    await stage.stop_bot()
    await stage.start_bot()
    await outside.deliver(body)
    await outside.delivered()
    await outside.silence(ANA, 0.3)
    assert (await stage.settled()).count(e.MessageReceived) == 1


async def test_kinds_that_nobody_knows_are_kept_as_they_came_sealed_and_counted(
    stage: Stage,
) -> None:
    outside = await stage.open()
    await outside.deliver(
        {
            "horoscopes": [{"of": "Ana Secreta"}],
            "event": {"type": "horoscopes", "event": "post"},
            "channel_id": "X",
        }
    )
    await outside.delivered()
    story = await stage.settled()
    assert story.count(OtherRecorded) == 1
    assert all(b"Secreta" not in row.state for row in story.recorded)
    gateway = stage.bot.gateway.peek(GATEWAY_STREAM)
    assert gateway is not None
    assert gateway.state.counts == {"horoscopes.post": 1}


async def test_groups_are_recorded_and_never_answered(stage: Stage) -> None:
    outside = await stage.open()
    await outside.say(ANA, expect="silence", chat_id=GROUP)
    await outside.delivered()
    await outside.silence(ANA, 0.3)
    story = await stage.settled()
    assert story.count(OtherRecorded) == 1
    assert (await outside.whapi_account()).sent == 0


async def test_one_bad_item_is_recorded_and_its_neighbours_are_answered(stage: Stage) -> None:
    outside = await stage.open()
    token = outside.token(ANA)
    good = text(ANA, "good-1", f"hola {token}")
    bad: Json = {"id": 7, "type": "text", "chat_id": ["no"], "from_me": "perhaps"}
    answer = await stage.post(msgspec.json.encode(envelope(bad)))
    assert answer.json() == {"received": 1, "rejected": 1, "other": 0}
    await outside.deliver(envelope(bad, good))
    await outside.delivered()
    await outside.reads(ANA)
    story = await stage.settled()
    assert story.count(ItemRejected) == 1


async def test_pictures_and_voices_are_answered_too(stage: Stage) -> None:
    outside = await stage.open(quiet_seconds=0.3)
    await outside.webhook("", senders=1)
    token = outside.token(ANA)
    await outside.phone(ANA, "image", text=f"mira {token}")
    await outside.phone(ANA, "voice")
    (body,) = await outside.reads(ANA)
    assert body == f"Eco: [imagen] mira {token} | [nota de voz]"
    await stage.settled()


async def test_the_same_noise_is_kept_once_however_often_it_comes_and_counted_each_time(
    stage: Stage,
) -> None:
    await stage.open()
    pings = (b"{}", b'{"channel_id":"X"}', b'{"event":{"type":"health","event":"post"}}',
             b'{"ping":1}', b'{"ping":2}')  # fmt: skip
    said = {"received": 1, "rejected": 0, "other": 1}
    for _ in range(3):
        for ping in pings:
            answer = await stage.post(ping)
            assert (answer.status_code, answer.json()) == (200, said), ping
        for nothing in (b'{"messages":[]}', b'{"statuses":null,"messages":[]}'):
            assert (await stage.post(nothing)).json() == {"received": 0}
    gateway = stage.bot.gateway.peek(GATEWAY_STREAM)
    assert gateway is not None
    assert gateway.state.counts == {"unknown.post": 4, "health.post": 1}
    assert stage.story().count(OtherRecorded) == len(pings)
    numbers = stage.bot.numbers()
    assert numbers["facts_other"] == len(pings)
    assert numbers["facts_duplicate"] == 2 * len(pings)
