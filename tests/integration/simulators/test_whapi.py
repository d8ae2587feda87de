"""The Whapi simulator: what a bot sends reaches a phone, what a person writes reaches the bot."""

import base64
from typing import cast

import httpx2
import pytest

from app.simulators import WhapiSimulator, serving
from tests.integration.simulators.conftest import Hook, Json, Lab

ANA = "15550100001"
CHAT = f"{ANA}@s.whatsapp.net"


async def drain(gate: Lab) -> None:
    assert await gate.get("/_sim/queue?wait=1&timeout=10") == {"pending": 0, "in_flight": 0}


async def phone(gate: Lab) -> list[Json]:
    return cast("list[Json]", (await gate.get(f"/_sim/phone/{ANA}"))["messages"])


def first(body: Json, key: str) -> Json:
    return cast("list[Json]", body[key])[0]


async def test_a_text_reaches_the_phone_and_comes_back_as_an_echo(gate: Lab, hook: Hook) -> None:
    sent = await gate.post("/messages/text", to=ANA, body="hola", typing_time=0)
    message = cast("Json", sent["message"])
    assert sent["sent"] is True
    assert message["chat_id"] == CHAT
    assert message["status"] == "pending"
    await drain(gate)
    [echo] = hook.events("messages")
    assert echo["event"] == {"type": "messages", "event": "post"}
    assert first(echo, "messages")["source"] == "api"
    assert first(echo, "messages")["from_me"] is True
    told = {first(body, "statuses")["status"] for body in hook.events("statuses")}
    assert told == {"sent", "delivered", "read"}
    [shown] = await phone(gate)
    assert (shown["from"], shown["body"], shown["status"]) == ("bot", "hola", "read")
    account = await gate.get("/_sim/account")
    assert account["sent"] == 1
    [line] = cast("dict[str, list[Json]]", account["chats"])[CHAT]
    assert (line["id"], line["body"]) == (message["id"], "hola")


async def test_echoes_and_statuses_can_be_switched_off(gate: Lab, hook: Hook) -> None:
    await gate.post("/_sim/webhook", echo=False, statuses=[])
    await gate.post("/messages/text", to=ANA, body="hola")
    assert await gate.get("/_sim/queue") == {"pending": 0, "in_flight": 0}
    assert hook.got == []


async def test_a_customers_message_is_posted_as_the_vendor_would(gate: Lab, hook: Hook) -> None:
    await gate.post("/_sim/webhook", url=hook.url, headers={"x-hilo-secret": "s"}, first_delay=0)
    said = await gate.post(f"/_sim/phone/{ANA}/say", text="hola", name="Ana Ficticia")
    await hook.until(1)
    method, path, body = hook.got[0]
    assert (method, path, body["channel_id"]) == ("POST", "/", "SIMULA-H1L0X")
    assert hook.headers[0]["x-hilo-secret"] == "s"
    message = first(body, "messages")
    assert message["id"] == said["id"]
    assert message["from"] == ANA
    assert message["from_name"] == "Ana Ficticia"
    assert message["text"] == {"body": "hola"}
    assert {"type", "chat_id", "timestamp", "source"} <= set(message)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("body", ("POST", "/in")),
        ("path", ("POST", "/in/messages/delete")),
        ("method", ("DELETE", "/in")),
    ],
)
async def test_three_modes_of_delivery(
    gate: Lab, hook: Hook, mode: str, expected: tuple[str, str]
) -> None:
    await gate.post("/_sim/webhook", url=f"{hook.url}/in", mode=mode)
    said = await gate.post(f"/_sim/phone/{ANA}/say", text="hola")
    await hook.until(1)
    await gate.post(f"/_sim/phone/{ANA}/delete", id=said["id"])
    await hook.until(2)
    method, path, body = hook.got[1]
    assert (method, path) == expected
    assert body["messages_removed"] == [said["id"]]
    assert (await phone(gate))[0]["deleted"] is True


async def test_anything_but_200_is_retried_until_it_is_200(gate: Lab, hook: Hook) -> None:
    hook.answers = [500, 503, 201, 404]
    await gate.post(f"/_sim/phone/{ANA}/say", text="hola")
    await drain(gate)
    assert len(hook.got) == 5
    assert len({str(body) for _, _, body in hook.got}) == 1
    account = await gate.get("/_sim/account")
    webhooks = cast("dict[str, int]", account["webhooks"])
    assert (webhooks["attempts"], webhooks["delivered"], webhooks["refused"]) == (5, 1, 4)
    attempts = cast("list[Json]", (await gate.get("/_sim/trace"))["attempts"])
    assert [attempt["status"] for attempt in attempts] == [500, 503, 201, 404, 200]


async def test_what_waits_for_its_delay_can_be_hurried(gate: Lab, hook: Hook) -> None:
    await gate.post("/_sim/webhook", first_delay=3000, max_delay=3000)
    hook.answers = [500]
    await gate.post(f"/_sim/phone/{ANA}/say", text="hola")
    await hook.until(1)
    assert (await gate.get("/_sim/queue"))["pending"] == 1
    await gate.post("/_sim/queue/retry")
    await drain(gate)
    assert len(hook.got) == 2


async def test_a_bot_that_is_down_gets_everything_when_it_is_back(gate: Lab, hook: Hook) -> None:
    live = hook.url
    await gate.post("/_sim/webhook", url="http://127.0.0.1:9/", first_delay=0.02)
    await gate.post(f"/_sim/phone/{ANA}/say", text="hola")
    await gate.post("/_sim/webhook", url=live)
    await gate.post(f"/_sim/phone/{ANA}/say", text="¿estás?")
    await hook.until(1)
    assert (await gate.get("/_sim/queue"))["pending"] == 1


async def test_what_a_dead_node_does_not_take_goes_to_the_next(gate: Lab, hook: Hook) -> None:
    both = [hook.url, "http://127.0.0.1:9"]
    await gate.post("/_sim/webhook", url="http://127.0.0.1:9/webhooks/whapi", nodes=both)
    for n in range(4):
        await gate.post(f"/_sim/phone/{ANA}/say", text=str(n))
    await drain(gate)
    assert [path for _, path, _ in hook.got] == ["/webhooks/whapi"] * 4
    account = await gate.get("/_sim/account")
    assert cast("dict[str, int]", account["webhooks"])["unreachable"] >= 2
    refused = await gate.http.post("/_sim/webhook", json={"nodes": ["127.0.0.1:9"]})
    assert refused.status_code == 400


async def test_duplicates_are_delivered_and_counted(gate: Lab, hook: Hook) -> None:
    await gate.post("/_sim/webhook", duplicates=1.0)
    for n in range(10):
        await gate.post(f"/_sim/phone/{ANA}/say", text=str(n))
    await drain(gate)
    assert len(hook.got) == 20
    assert (await gate.get("/_sim/account"))["duplicates_sent"] == 10


async def test_scattered_deliveries_lose_their_order_but_none_is_lost(
    gate: Lab, hook: Hook
) -> None:
    await gate.post("/_sim/webhook", scatter=0.2)
    texts = [str(n) for n in range(20)]
    for text in texts:
        await gate.post(f"/_sim/phone/{ANA}/say", text=text)
    await drain(gate)
    came = [cast("Json", first(body, "messages")["text"])["body"] for _, _, body in hook.got]
    assert came != texts
    assert sorted(map(str, came)) == sorted(texts)


@pytest.mark.parametrize("form", ["patch", "put", "action"])
async def test_a_customer_edits_a_message(gate: Lab, hook: Hook, form: str) -> None:
    said = await gate.post(f"/_sim/phone/{ANA}/say", text="ola")
    await hook.until(1)
    await gate.post(f"/_sim/phone/{ANA}/edit", **{"id": said["id"], "text": "hola", "as": form})
    await hook.until(2)
    body = hook.got[1][2]
    if form == "patch":
        update = first(body, "messages_updates")
        assert cast("Json", update["before_update"])["text"] == {"body": "ola"}
        assert cast("Json", update["after_update"])["text"] == {"body": "hola"}
    elif form == "put":
        assert body["event"] == {"type": "messages", "event": "put"}
        assert first(body, "messages")["text"] == {"body": "hola"}
    else:
        assert cast("Json", first(body, "messages")["action"])["target"] == said["id"]
    [shown] = await phone(gate)
    assert (shown["body"], shown["edited"]) == ("hola", True)


async def test_pictures_and_voices_are_real_files(gate: Lab, hook: Hook) -> None:
    await gate.post(f"/_sim/phone/{ANA}/image", text="mira")
    await gate.post(f"/_sim/phone/{ANA}/voice", seconds=2)
    await drain(gate)
    found = {str(m["type"]): m for m in (first(b, "messages") for b in hook.events("messages"))}
    image, voice = cast("Json", found["image"]["image"]), cast("Json", found["voice"]["voice"])
    assert image["caption"] == "mira"
    assert (await gate.http.get(f"/media/{image['id']}")).content.startswith(b"\x89PNG")
    linked = await gate.http.get(str(voice["link"]))
    assert linked.content.startswith(b"OggS")
    assert len(linked.content) == voice["file_size"]


async def test_without_auto_download_there_is_no_link(gate: Lab, hook: Hook) -> None:
    answer = await gate.http.patch("/settings", json={"media": {"auto_download": []}})
    assert answer.json()["changes"] == ["media"]
    await gate.post(f"/_sim/phone/{ANA}/image")
    await hook.until(1)
    assert "link" not in cast("Json", first(hook.got[0][2], "messages")["image"])


async def test_a_bot_sends_media_in_any_form(gate: Lab) -> None:
    uploaded = await gate.http.post(
        "/media", content=b"%PDF-", headers={"content-type": "application/pdf"}
    )
    medium = uploaded.json()["media"][0]["id"]
    encoded = base64.b64encode(b"OggS").decode()
    await gate.post("/messages/document", to=ANA, media=medium, filename="a.pdf", caption="lee")
    await gate.post("/messages/voice", to=ANA, media=f"data:audio/ogg;base64,{encoded}")
    await gate.post("/messages/image", to=ANA, media="http://127.0.0.1/x.jpg", caption="ve")
    assert [shown["type"] for shown in await phone(gate)] == ["document", "voice", "image"]
    unknown = await gate.http.post("/messages/image", json={"to": ANA, "media": "no such!"})
    assert unknown.status_code == 404


async def test_typing_is_seen_on_both_sides(gate: Lab, hook: Hook) -> None:
    await gate.post(f"/_sim/phone/{ANA}/typing", status="recording")
    await hook.until(1)
    assert hook.got[0][2]["presences"] == [{"contact_id": ANA, "status": "recording"}]
    await gate.http.put(f"/presences/{ANA}", json={"presence": "typing", "delay": 3})
    seen = await gate.get(f"/_sim/phone/{ANA}/wait?after=99&presence=&timeout=10")
    assert seen["bot_presence"] == "typing"
    assert (await gate.http.post(f"/presences/{ANA}")).status_code == 200
    assert (await gate.http.post(f"/presences/{ANA}")).status_code == 409


async def test_a_phone_waits_for_the_bot(gate: Lab) -> None:
    said = await gate.post(f"/_sim/phone/{ANA}/say", text="hola")
    nothing = await gate.get(f"/_sim/phone/{ANA}/wait?after={said['seq']}&timeout=0")
    assert nothing["messages"] == []
    await gate.post("/messages/text", to=CHAT, body="hola, Ana")
    news = await gate.get(f"/_sim/phone/{ANA}/wait?after={said['seq']}&timeout=10&bot=1")
    assert [m["body"] for m in cast("list[Json]", news["messages"])] == ["hola, Ana"]


async def test_messages_are_listed_newest_first_and_filtered(gate: Lab) -> None:
    await gate.post(f"/_sim/phone/{ANA}/say", text="uno", message={"timestamp": 100})
    said = await gate.post(f"/_sim/phone/{ANA}/say", text="dos", message={"timestamp": 200})
    sent = await gate.post("/messages/text", to=ANA, body="tres")

    async def listed(query: str) -> list[object]:
        found = await gate.get(f"/messages/list/{CHAT}?{query}")
        return [cast("Json", m["text"])["body"] for m in cast("list[Json]", found["messages"])]

    assert await listed("") == ["tres", "dos", "uno"]
    assert await listed("sort=asc&count=2") == ["uno", "dos"]
    assert await listed("from_me=true") == ["tres"]
    assert await listed("time_from=150&time_to=250") == ["dos"]
    assert (await gate.http.get("/messages/list/15550100002")).status_code == 404
    sent_id = cast("Json", sent["message"])["id"]
    assert (await gate.get(f"/messages/{sent_id}"))["text"] == {"body": "tres"}
    await gate.http.put(f"/messages/{said['id']}")
    assert [shown["read"] for shown in await phone(gate)] == [False, True, False]


async def test_an_agent_writes_from_the_bots_phone(gate: Lab, hook: Hook) -> None:
    await gate.post(f"/_sim/phone/{ANA}/agent", text="le atiende una persona")
    await hook.until(1)
    message = first(hook.got[0][2], "messages")
    assert (message["from_me"], message["source"]) == (True, "mobile")
    assert (await phone(gate))[0]["from"] == "agent"
    assert (await gate.get("/_sim/account"))["sent"] == 0


async def test_any_body_can_be_delivered_as_it_is(gate: Lab, hook: Hook) -> None:
    body = {"messages": [{"id": 7}], "event": {"type": "messages", "event": "put"}}
    await gate.post("/_sim/webhook", mode="method", url=hook.url)
    await gate.post("/_sim/deliver", **body)
    await hook.until(1)
    assert hook.got == [("PUT", "/", body)]


async def test_chats_have_names_and_labels(gate: Lab) -> None:
    label = {"id": "1", "name": "vip", "color": "gold"}
    await gate.post("/labels", **label)
    await gate.post(f"/_sim/phone/{ANA}/profile", name="Ana Ficticia", labels=[label])
    chat = await gate.get(f"/chats/{CHAT}")
    assert (chat["name"], chat["labels"], chat["type"]) == ("Ana Ficticia", [label], "contact")
    assert (await gate.http.get("/labels")).json() == [label]
    assert (await gate.http.get("/chats/15550100002")).status_code == 404


async def test_settings_name_the_webhooks(gate: Lab, hook: Hook) -> None:
    changed = await gate.http.patch(
        "/settings",
        json={
            "webhooks": [
                {"url": f"{hook.url}/a", "events": [{"type": "messages", "method": "post"}]},
                {"url": f"{hook.url}/b", "events": [{"type": "presences"}]},
            ],
            "callback_backoff_delay_ms": 4000,
        },
    )
    assert set(changed.json()["changes"]) == {"webhooks", "callback_backoff_delay_ms"}
    await gate.post(f"/_sim/phone/{ANA}/say", text="hola")
    await gate.post(f"/_sim/phone/{ANA}/typing")
    await drain(gate)
    assert sorted(path for _, path, _ in hook.got) == ["/a", "/b"]
    refused = await gate.http.patch("/settings", json={"callback_backoff_delay_ms": 1})
    assert refused.status_code == 400


async def test_an_unlinked_phone_sends_nothing(gate: Lab, hook: Hook) -> None:
    await gate.post("/_sim/health", text="QR")
    await hook.until(1)
    health = cast("Json", hook.got[0][2]["health"])
    assert health["status"] == {"code": 3, "text": "QR"}
    answer = await gate.http.post("/messages/text", json={"to": ANA, "body": "hola"})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"\xff", 400),
        (b'{"to": "15550100001"}', 400),
        (b'{"to": "15550100001", "body": ""}', 400),
        (b'{"to": "ana", "body": "x"}', 400),
        (b'{"to": "15550100001", "body": "x", "typing_time": 61}', 400),
        (b'{"to": "15550100001", "body": "x", "edit": "none"}', 404),
    ],
)
async def test_garbage_is_refused_in_the_vendors_shape(gate: Lab, body: bytes, status: int) -> None:
    answer = await gate.http.post("/messages/text", content=body)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == status
    nowhere = await gate.http.get("/no/where")
    assert nowhere.json()["error"]["code"] == 404


async def test_a_token_is_required_if_there_is_one() -> None:
    async with (
        serving(WhapiSimulator(token="t")) as url,
        httpx2.AsyncClient(base_url=url) as http,
    ):
        assert (await http.get("/health")).status_code == 401
        good = await http.get("/health", headers={"authorization": "Bearer t"})
        assert good.json()["status"]["text"] == "AUTH"
