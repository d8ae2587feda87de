"""`POST /update-user`, as n8n calls it, against the gateway's own idea of a person (A10)."""

from __future__ import annotations

import httpx2
import pytest
from structlog.testing import capture_logs

from app import access, bot
from app.aggregates import events as e
from app.conversation import profiles
from tests.integration.turns.stage import Stage

ANA = "15550103401"
CHATS = "GET /chats/*"
HOUR: dict[str, object] = {"quiet_seconds": 3600, "longest_seconds": 7200}


@pytest.fixture
async def known(stage: Stage) -> str:
    """Ana has written; return her pseudonym."""
    await stage.open(**HOUR)
    await stage.outside.say(ANA, expect="silence")
    await stage.has(e.MessageReceived)
    (stream,) = stage.story().states
    return stream.removeprefix("user/")


async def update(stage: Stage, body: object, **headers: str) -> httpx2.Response:
    """Call the hook."""
    async with httpx2.AsyncClient(base_url=stage.url, timeout=10) as client:
        if isinstance(body, bytes):
            return await client.post("/update-user", content=body, headers=headers)
        return await client.post("/update-user", json=body, headers=headers)


async def done(stage: Stage) -> None:
    """Return when nothing is being read any more."""
    await stage.until(lambda: stage.bot.numbers()["profiles_waiting"] == 0)


async def rename(stage: Stage, name: str, *labels: str) -> None:
    """Change what the gateway shows of Ana."""
    shown = [{"id": str(n), "name": label, "color": "red"} for n, label in enumerate(labels)]
    await stage.outside.phone(ANA, "profile", name=name, labels=shown)


async def shown(stage: Stage, user: str) -> tuple[str | None, tuple[str, ...]]:
    """Return name and labels, as the API shows them from memory."""
    async with httpx2.AsyncClient(base_url=stage.url, timeout=10) as client:
        found = (await client.get(f"/v1/users/{user}/client")).json()
        assert (await client.get("/v1/users/nobody/client")).status_code == 404
    return found["name"], tuple(found["labels"])


async def test_name_and_labels_are_read_again_and_told_once(stage: Stage, known: str) -> None:
    assert await shown(stage, known) == (None, ())
    await rename(stage, "Ana de Prueba", "vip", "hotel")
    answer = await update(stage, {"userId": ANA, "changes": ["name", "labels"]})
    assert answer.status_code == 200
    assert answer.json()["success"] is True
    assert answer.json()["changes"] == ["name", "labels"]
    await done(stage)
    assert await shown(stage, known) == ("Ana de Prueba", ("vip", "hotel"))
    for same in (ANA, int(ANA), f"{ANA}@s.whatsapp.net", f"+{ANA}", known):
        assert (await update(stage, {"userId": same})).json()["changes"] == []
        await done(stage)
    assert stage.story().count(e.ProfileUpdated) == 1
    await rename(stage, "Ana de Prueba", "hotel")
    assert (await update(stage, {"userId": known, "changes": ["cache_invalidate"]})).is_success
    await done(stage)
    assert await shown(stage, known) == ("Ana de Prueba", ("hotel",))
    assert stage.story().count(e.ProfileUpdated) == 2


async def test_messages_never_ask_the_gateway(stage: Stage, known: str) -> None:
    await rename(stage, "Otra", "vip")
    await stage.outside.say(ANA, "otra vez", expect="silence")
    await stage.has(e.MessageReceived, 2)
    assert await shown(stage, known) == (None, ())
    assert stage.story().count(e.ProfileUpdated) == 0


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "userId is required"),
        ({"changes": ["name"]}, "userId is required"),
        ({"userId": " "}, "userId is required"),
        ({"userId": None}, "userId is required"),
        ({"userId": True}, "userId is required"),
        (b"", "userId is required"),
        (b"{", "the body must be a JSON object"),
        (b"\xff", "the body must be a JSON object"),
        ([], "the body must be a JSON object"),
        ({"userId": "1" * 101}, "userId is too long"),
        ({"userId": ANA, "changes": "name"}, "changes must be a list of a few words"),
        ({"userId": ANA, "changes": [1]}, "changes must be a list of a few words"),
    ],
)
async def test_what_cannot_be_used_is_refused_and_logged(
    stage: Stage, body: object, error: str
) -> None:
    await stage.open(**HOUR)
    with capture_logs() as lines:
        answer = await update(stage, body)
    assert (answer.status_code, answer.json()) == (400, {"error": error})
    assert [line["error"] for line in lines if line["event"] == "HOOK_ERROR"] == [error]


async def test_a_body_that_is_too_large_is_refused(stage: Stage) -> None:
    await stage.open(**HOUR)
    assert (await update(stage, b" " * 2_000_000)).status_code == 413


async def test_of_somebody_unknown_there_is_nothing_to_update(stage: Stage) -> None:
    await stage.open(**HOUR)
    with capture_logs() as lines:
        for nobody in ("15550109999", "nobody", "1@lid", "\u0000"):
            answer = await update(stage, {"userId": nobody})
            assert (answer.status_code, answer.json()["success"]) == (200, True)
            assert "nothing to update" in answer.json()["message"]
    assert {line["userId"] for line in lines if line["event"] == "HOOK_UPDATE"} == {"unknown"}
    assert stage.bot.numbers()["profiles_waiting"] == 0


async def test_a_gateway_that_stumbles_is_asked_again_and_one_that_refuses_is_not(
    stage: Stage, known: str
) -> None:
    await rename(stage, "Ana de Prueba")
    await stage.outside.break_whapi(CHATS, "status", status=500, times=2)
    await update(stage, {"userId": ANA})
    await done(stage)
    assert (await shown(stage, known))[0] == "Ana de Prueba"
    await rename(stage, "Otra")
    await stage.outside.break_whapi(CHATS, "status", status=404, times=1)
    with capture_logs() as lines:
        assert (await update(stage, {"userId": ANA})).status_code == 200
        await done(stage)
    assert [(line["event"], line.get("error")) for line in lines][-1] == ("HOOK_ERROR", "http_404")
    assert (await shown(stage, known))[0] == "Ana de Prueba"


async def test_only_a_hook_s_key_opens_it_once_there_are_keys(stage: Stage, known: str) -> None:
    settings = stage.settings()
    tokens = {
        role: access.create(settings, role, by="t", expires_at=None)[1]
        for role in ("hook", "auditor")
    }
    body = {"userId": known}
    assert (await update(stage, body)).status_code == 401
    for role, status in (("hook", 200), ("auditor", 403)):
        answer = await update(stage, body, authorization=f"Bearer {tokens[role]}")
        assert answer.status_code == status


async def restart(stage: Stage) -> None:
    """Stop the bot in good order, and start it again."""
    await stage.stop_bot()
    await stage.start_bot(**HOUR)


async def test_what_waits_at_a_shutdown_is_read_after_the_next_start(
    stage: Stage, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bot, "PROFILE_SECONDS", 0.1)
    await rename(stage, "Ana de Prueba")
    await stage.outside.break_whapi(CHATS, "status", status=500, times=1000)
    assert (await update(stage, {"userId": ANA})).status_code == 200
    with capture_logs() as lines:
        await restart(stage)
    told = [line for line in lines if line["event"] == "HOOK_UPDATE"]
    assert [line.get("left_for_next_start") for line in told] == [1, None]
    assert [line.get("left_from_before") for line in told] == [None, 1]
    assert stage.bot.numbers()["profiles_waiting"] == 1
    await stage.outside.mend()
    await restart(stage)
    await done(stage)
    assert (await shown(stage, known))[0] == "Ana de Prueba"
    await restart(stage)
    assert stage.bot.numbers()["profiles_waiting"] == 0, "what is done is not done again"


async def test_a_shutdown_waits_a_moment_for_what_is_being_read(stage: Stage, known: str) -> None:
    await rename(stage, "Ana de Prueba")
    await stage.outside.break_whapi(CHATS, "status", status=500, times=1)
    assert (await update(stage, {"userId": ANA})).status_code == 200
    with capture_logs() as lines:
        await stage.stop_bot()
    assert [line["event"] for line in lines if "updated" in line] == ["HOOK_UPDATE"]
    await stage.start_bot(**HOUR)
    assert (await shown(stage, known))[0] == "Ana de Prueba"


async def test_a_gateway_that_is_down_puts_it_off_until_it_is_back(
    stage: Stage, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "LATER_SECONDS", 0.05)
    await rename(stage, "Ana de Prueba")
    await stage.outside.break_whapi(CHATS, "status", status=503, times=profiles.ATTEMPTS + 1)
    with capture_logs() as lines:
        assert (await update(stage, {"userId": ANA})).status_code == 200
        await done(stage)
    errors = [line for line in lines if line["event"] == "HOOK_ERROR"]
    assert [(line["error"], line["fallback"]) for line in errors] == [("http_503", "later")]
    assert (await shown(stage, known))[0] == "Ana de Prueba"


async def test_whoever_asks_again_is_not_kept_waiting_by_what_failed_before(
    stage: Stage, known: str
) -> None:
    await rename(stage, "Ana de Prueba")
    await stage.outside.break_whapi(CHATS, "status", status=503, times=profiles.ATTEMPTS)
    with capture_logs() as lines:
        assert (await update(stage, {"userId": ANA})).status_code == 200
        await stage.until(lambda: any(line.get("fallback") == "later" for line in lines))
    assert (await update(stage, {"userId": ANA})).status_code == 200
    await done(stage)
    assert (await shown(stage, known))[0] == "Ana de Prueba"


async def test_what_cannot_be_kept_is_not_promised(stage: Stage, known: str) -> None:
    stage.bot.asked.close()
    with capture_logs() as lines:
        answer = await update(stage, {"userId": known})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert [line["error"] for line in lines if line["event"] == "HOOK_ERROR"] == ["LogUnavailable"]
    assert stage.bot.numbers()["profiles_waiting"] == 0
