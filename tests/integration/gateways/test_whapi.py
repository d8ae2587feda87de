"""Sending through Whapi over real HTTP: what is sent, and what is known when it goes wrong."""

from __future__ import annotations

from contextlib import AsyncExitStack

import msgspec
import pytest

from app.conversation.ports import (
    SendDeferred,
    SendError,
    SendOutcomeUnknown,
    SendRefused,
    SentPart,
)
from app.gateways import ChannelHealth, Chat, WhapiMessenger, WhapiSettings
from app.gateways import whapi as gateway
from app.simulators.faults import Fault
from app.simulators.serving import serving
from app.simulators.whapi import WhapiSimulator
from tests.integration.gateways.conftest import (
    CHAT,
    TEXT,
    OpenMessenger,
    Scripted,
    assert_impersonal,
)

SEND = "POST /messages/text"
PRESENCE = "PUT /presences/*"


async def failure_of(messenger: WhapiMessenger) -> SendError:
    with pytest.raises(SendError) as caught:
        await messenger.send_text(CHAT, TEXT)
    assert_impersonal(caught.value)
    return caught.value


def shown(sim: WhapiSimulator) -> list[str]:
    """What the person's phone shows of the bot."""
    chat = sim.state.chats.get(CHAT)
    return [kept.body for kept in chat.kept if kept.author == "bot"] if chat else []


async def test_a_text_that_was_sent_has_the_gateways_id(
    messenger: WhapiMessenger, whapi_sim: WhapiSimulator
) -> None:
    first = await messenger.send_text(CHAT, TEXT)
    second = await messenger.send_text(CHAT, "otra", quoted=first)
    assert shown(whapi_sim) == [TEXT, "otra"]
    assert whapi_sim.state.find(first).body == TEXT
    assert whapi_sim.state.find(second).message["context"] == {"quoted_id": first}


async def test_a_send_never_simulates_typing() -> None:
    """The typing time would count against the time-out; presence shows typing."""
    assert b'"typing_time":0' in msgspec.json.encode(gateway.text_body(CHAT, TEXT, ""))


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 413, 415, 307])
async def test_a_clear_refusal_is_surely_not_sent(
    messenger: WhapiMessenger, whapi_sim: WhapiSimulator, status: int
) -> None:
    whapi_sim.faults.add([Fault(match=SEND, kind="status", status=status, message=TEXT)])
    error = await failure_of(messenger)
    assert (type(error), error.code) == (SendRefused, f"http_{status}")
    assert shown(whapi_sim) == []
    assert await messenger.send_text(CHAT, TEXT)


@pytest.mark.parametrize("wait", [None, 3.0])
async def test_too_many_requests_is_surely_not_sent_and_may_be_tried_later(
    messenger: WhapiMessenger, whapi_sim: WhapiSimulator, wait: float | None
) -> None:
    whapi_sim.faults.add([Fault(match=SEND, kind="status", status=429, retry_after=wait)])
    error = await failure_of(messenger)
    assert (type(error), error.code, error.retry_after) == (SendDeferred, "http_429", wait)


async def test_a_connection_that_cannot_be_opened_is_surely_not_sent(
    whapi_settings: WhapiSettings, open_messenger: OpenMessenger, dead_url: str
) -> None:
    messenger = open_messenger(msgspec.structs.replace(whapi_settings, base_url=dead_url))
    error = await failure_of(messenger)
    assert (type(error), error.code) == (SendDeferred, "connect")


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 504])
async def test_an_unclear_status_may_hide_a_message_that_was_sent(
    messenger: WhapiMessenger, whapi_sim: WhapiSimulator, status: int
) -> None:
    whapi_sim.faults.add([Fault(match=SEND, kind="status", status=status)])
    error = await failure_of(messenger)
    assert (type(error), error.code) == (SendOutcomeUnknown, f"http_{status}")


@pytest.mark.parametrize(
    ("kind", "code", "sent"),
    [
        ("disconnect", "disconnected", []),
        ("disconnect_after", "disconnected", [TEXT]),
        ("malformed_json", "malformed", [TEXT]),
    ],
)
async def test_no_clear_answer_may_hide_a_message_that_was_sent(
    messenger: WhapiMessenger, whapi_sim: WhapiSimulator, kind: str, code: str, sent: list[str]
) -> None:
    whapi_sim.faults.add([msgspec.convert({"match": SEND, "kind": kind}, Fault)])
    error = await failure_of(messenger)
    assert (type(error), error.code) == (SendOutcomeUnknown, code)
    assert shown(whapi_sim) == sent


async def test_no_answer_in_time_may_hide_a_message_that_was_sent(
    whapi_sim: WhapiSimulator, whapi_settings: WhapiSettings, open_messenger: OpenMessenger
) -> None:
    whapi_sim.faults.add([Fault(match=SEND, kind="hang")])
    messenger = open_messenger(msgspec.structs.replace(whapi_settings, send_seconds=0.2))
    error = await failure_of(messenger)
    assert (type(error), error.code) == (SendOutcomeUnknown, "timeout")


@pytest.mark.parametrize(
    "body", [b"{}", b'{"sent": false}', b'{"sent": true}', b'{"sent": true, "message": {}}']
)
async def test_an_answer_that_does_not_confirm_leaves_it_unknown(
    whapi_settings: WhapiSettings,
    open_messenger: OpenMessenger,
    stack: AsyncExitStack,
    body: bytes,
) -> None:
    url = await stack.enter_async_context(serving(Scripted(body)))
    messenger = open_messenger(msgspec.structs.replace(whapi_settings, base_url=url))
    error = await failure_of(messenger)
    assert (type(error), error.code) == (SendOutcomeUnknown, "not_confirmed")


async def test_typing_is_shown(messenger: WhapiMessenger, whapi_sim: WhapiSimulator) -> None:
    await messenger.show_typing(CHAT)
    assert whapi_sim.state.chat(CHAT).bot_presence == "typing"


@pytest.mark.parametrize("kind", ["disconnect", "malformed_json", "status", "hang"])
async def test_typing_that_cannot_be_shown_disturbs_nobody(
    whapi_sim: WhapiSimulator,
    whapi_settings: WhapiSettings,
    open_messenger: OpenMessenger,
    kind: str,
) -> None:
    whapi_sim.faults.add([msgspec.convert({"match": PRESENCE, "kind": kind}, Fault)])
    messenger = open_messenger(msgspec.structs.replace(whapi_settings, typing_seconds=0.1))
    await messenger.show_typing(CHAT)
    assert whapi_sim.faults.rules[0].struck == 1


def keep(sim: WhapiSimulator, id_: str, second: int, *, from_me: bool = True) -> None:
    text = {"type": "text", "text": {"body": f"texto {id_}"}}
    sim.state.keep({"id": id_, "chat_id": CHAT, "from_me": from_me, "timestamp": second, **text})


async def test_what_was_sent_since_an_instant_is_found_by_a_clock_that_is_a_day_off(
    messenger: WhapiMessenger, whapi_sim: WhapiSimulator
) -> None:
    since = 200_000
    earliest = since - gateway.LIST_SLACK_SECONDS
    seconds = (earliest - 1, earliest, since - 600, since, since + 600)
    for second in seconds:
        keep(whapi_sim, f"m{second}", second)
    keep(whapi_sim, "theirs", since, from_me=False)
    found = await messenger.sent_since(CHAT, since * 1_000_000 + 900_000)
    assert [part.id for part in found] == [f"m{second}" for second in seconds[1:]]
    assert found[0] == SentPart(
        id=f"m{earliest}", text=f"texto m{earliest}", at=earliest * 1_000_000
    )


async def test_messages_of_one_second_are_found_in_the_order_they_were_sent(
    messenger: WhapiMessenger, whapi_sim: WhapiSimulator
) -> None:
    for number in range(5):
        keep(whapi_sim, f"m{number}", 100)
    found = await messenger.sent_since(CHAT, 100_000_000)
    assert [part.id for part in found] == ["m0", "m1", "m2", "m3", "m4"]


async def test_a_long_list_is_read_page_by_page(
    messenger: WhapiMessenger, whapi_sim: WhapiSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(25):
        keep(whapi_sim, f"m{number}", 100 + number)
    monkeypatch.setattr(gateway, "PAGE", 10)
    found = await messenger.sent_since(CHAT, 0)
    assert [part.id for part in found] == [f"m{number}" for number in range(25)]
    monkeypatch.setattr(gateway, "MAX_PAGES", 2)
    with pytest.raises(SendOutcomeUnknown):
        await messenger.sent_since(CHAT, 0)


async def test_a_text_with_an_address_in_it_is_found_as_a_link_preview(
    messenger: WhapiMessenger, whapi_sim: WhapiSimulator
) -> None:
    preview = {"type": "link_preview", "link_preview": {"body": "mira https://example.org"}}
    message = {"id": "m1", "chat_id": CHAT, "from_me": True, "timestamp": 100, **preview}
    whapi_sim.state.keep(message)
    found = await messenger.sent_since(CHAT, 100_000_000)
    assert [part.text for part in found] == ["mira https://example.org"]


@pytest.mark.parametrize("kind", ["disconnect", "malformed_json", "status"])
async def test_a_list_that_cannot_be_had_is_not_an_empty_list(
    messenger: WhapiMessenger, whapi_sim: WhapiSimulator, kind: str
) -> None:
    await messenger.send_text(CHAT, TEXT)
    whapi_sim.faults.add([msgspec.convert({"match": "GET *", "kind": kind}, Fault)])
    with pytest.raises(SendError) as caught:
        await messenger.sent_since(CHAT, 0)
    assert_impersonal(caught.value)


async def test_a_chat_that_the_gateway_lost_is_not_an_empty_list(messenger: WhapiMessenger) -> None:
    with pytest.raises(SendRefused):
        await messenger.sent_since(CHAT, 0)


async def test_a_chat_has_a_name_and_labels(
    messenger: WhapiMessenger, whapi_sim: WhapiSimulator
) -> None:
    kept = whapi_sim.state.chat(CHAT)
    kept.labels = [{"id": "1", "name": "vip", "color": "red"}]
    assert await messenger.chat(CHAT) == Chat(name=kept.name, labels=("vip",))


async def test_the_health_of_the_channel_can_be_read(
    messenger: WhapiMessenger, whapi_sim: WhapiSimulator
) -> None:
    assert await messenger.health() == ChannelHealth(code=4, text="AUTH")
    whapi_sim.settings.health = "QR"
    assert (await messenger.health()).text == "QR"
    assert (await failure_of(messenger)).code == "http_401"


async def test_a_message_can_be_marked_as_read(
    messenger: WhapiMessenger, whapi_sim: WhapiSimulator
) -> None:
    keep(whapi_sim, "theirs", 100, from_me=False)
    await messenger.mark_read("theirs")
    assert whapi_sim.state.find("theirs").read
    with pytest.raises(SendRefused):
        await messenger.mark_read("unknown")


async def test_the_webhook_of_the_channel_can_be_set(
    messenger: WhapiMessenger, whapi_sim: WhapiSimulator, dead_url: str
) -> None:
    await messenger.configure_webhook(f"{dead_url}/webhooks/whapi", {"x-hilo-secret": "s"})
    (webhook,) = whapi_sim.postman.webhooks
    assert (webhook.url, webhook.headers) == (f"{dead_url}/webhooks/whapi", {"x-hilo-secret": "s"})
    with pytest.raises(ValueError, match="at most 5"):
        await messenger.configure_webhook(dead_url, {f"x-{number}": "" for number in range(6)})


async def test_a_send_for_which_it_is_too_late_when_its_connection_is_there_is_not_sent(
    messenger: WhapiMessenger, whapi_sim: WhapiSimulator
) -> None:
    asked: list[bool] = []

    def still() -> bool:
        asked.append(True)
        return len(asked) > 1

    with pytest.raises(SendDeferred) as late:
        await messenger.send_text(CHAT, TEXT, still=still)
    assert (late.value.code, asked) == ("too_late", [True])
    assert shown(whapi_sim) == []
    assert await messenger.send_text(CHAT, TEXT, still=still)
    assert shown(whapi_sim) == [TEXT]
