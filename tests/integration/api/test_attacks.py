"""What strangers, browsers and careless clients try at the API."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from app import access
from app.api.rates import MOST, Rates
from app.api.v1 import stream as streaming
from tests.integration.api.conftest import Client
from tests.integration.turns.stage import Stage

Key = Callable[..., dict[str, str]]


FROM_ELSEWHERE = [
    {"x-forwarded-for": "127.0.0.1"},
    {"forwarded": "for=127.0.0.1"},
    {"via": "1.1 proxy"},
    {"x-real-ip": "127.0.0.1"},
    {"host": "bot.example.com"},
    {"host": "127.0.0.1.example.com"},
    {"host": "localhost.example.com:3010"},
    {"host": ""},
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"sec-fetch-site": "cross-site"},
]


async def test_without_keys_a_proxy_or_a_page_in_a_browser_is_not_this_machine(
    local: Client,
) -> None:
    for headers in FROM_ELSEWHERE:
        assert (await local.get("/v1/bots", headers=headers)).status_code == 401, headers


OF_HERE = ["127.0.0.1:3010", "[::1]:3010", "localhost", "127.8.8.8"]


async def test_every_name_of_this_machine_is_this_machine(local: Client) -> None:
    for host in OF_HERE:
        headers = {"host": host, "origin": f"http://{host}"}
        assert (await local.get("/v1/bots", headers=headers)).status_code == 200, host


async def test_an_installation_whose_keys_expire_does_not_open(stage: Stage, local: Client) -> None:
    access.create(stage.settings(), "auditor", by="t", expires_at=1)
    assert (await local.get("/v1/bots")).status_code == 401


async def test_a_key_in_the_address_opens_nothing_and_no_key_is_logged(
    stage: Stage, key: Key, local: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = key("auditor")["authorization"].partition(" ")[2]
    for name in ("key", "token", "access_token", "authorization"):
        assert (await local.get(f"/v1/bots?{name}={token}")).status_code == 401
    cookie = {"cookie": f"authorization={token}"}
    assert (await local.get("/v1/bots", headers=cookie)).status_code == 401
    assert (
        await local.get("/v1/bots", headers={"authorization": f"Bearer {token}"})
    ).status_code == 200
    secret = token.rpartition("_")[2]
    assert secret not in caplog.text.replace(f"={token}", "")  # our own client logs its addresses
    for file in stage.settings().logs_directory.glob("*"):
        assert secret not in file.read_text("utf-8")


STRANGE = [
    "/v1/users/..%2f..%2fcontrol",
    "/v1/users/%2e%2e/%2e%2e/healthz",
    "/v1/users/%00",
    "/v1/users/%ff%fe",
    "/v1/users/assistant",
    "/v1/threads/..%2fassistant",
    "/v1//users",
    "/v1/users/" + "x" * 5000,
    "/v1/events?user=%00&limit=1",
    "/v1/events?cursor=" + "ff" * 4000,
    "/v1/tokens?limit=" + "9" * 30,
    "/v1/events?min_position=" + "9" * 19 + "&bot=..%2f..",
    "/v1/users?after=%00",
    "/v1/users?as_of=" + "9" * 6000,
    "/v1/bots?as_of=1",
    "/v1/threads?as_of=0001-01-01T00:00:00%2B14:00",
    "/v1/events?since=²",
]


async def test_strange_paths_and_questions_are_refused_or_find_nothing(local: Client) -> None:
    for path in STRANGE:
        answer = await local.get(path)
        assert answer.status_code in {200, 404, 409, 422}, (path, answer.text)


async def test_a_large_body_is_refused_before_anybody_asks_who_sends_it(local: Client) -> None:
    url = "/v1/projections/usage/pause"
    answer = await local.post(url, content=b"x" * 100_000)
    assert answer.status_code == 413

    async def pieces() -> object:
        for _ in range(100):
            yield b"x" * 1000

    headers = {"content-type": "application/json"}
    answer = await local.post(url, content=pieces(), headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 413


async def test_a_stream_ends_when_its_key_is_revoked(
    stage: Stage, key: Key, local: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "LOOK_SECONDS", 0.0)
    key("analyst")
    headers = key("auditor")
    key_id = headers["authorization"].split("_")[1]
    async with local.stream("GET", "/v1/events/stream", headers=headers) as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == ": hilo"
        access.revoke(stage.settings(), key_id, by="t", why="lost")
        rest = [line async for line in lines]
    assert "event: error" in rest


def test_a_bucket_holds_a_burst_and_fills_again() -> None:
    now = [0.0]
    rates = Rates(2.0, 3, clock=lambda: now[0])
    assert [rates.wait("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert rates.wait("b") == 0.0
    now[0] = 0.5
    assert rates.wait("a") == 0.0
    assert rates.wait("a") == 0.5
    now[0] = 1000.0
    assert [rates.wait("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_a_bucket_that_is_full_again_is_forgotten_and_no_crowd_of_keys_fills_memory() -> None:
    now = [0.0]
    rates = Rates(2.0, 3, clock=lambda: now[0])
    assert rates.wait("a") == 0.0
    now[0] = 1.5
    assert rates.wait("a") == 0.0
    assert rates.figures().expirations == 1
    for number in range(MOST + 5):
        assert rates.wait(f"key {number}") == 0.0
    assert (rates.figures().size, rates.figures().evictions) == (MOST, 6)


async def test_a_key_that_asks_too_often_is_told_when_to_come_again(stage: Stage, key: Key) -> None:
    await stage.stop_bot()
    await stage.start_bot(key_rate=0.5, key_burst=2, quiet_seconds=3600, longest_seconds=7200)
    async with Client(base_url=stage.url, timeout=10) as client:
        one, other = key("auditor"), key("analyst")
        answers = [await client.get("/v1/bots", headers=one) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].headers["content-type"] == "application/problem+json"
        assert 1 <= int(answers[2].headers["retry-after"]) <= 2
        assert (await client.get("/v1/bots", headers=other)).status_code == 200
        assert "hilo_refused_too_often_total 1.0" in (await client.get("/metrics")).text


async def test_a_slash_too_many_leads_nobody_anywhere(
    stage: Stage, key: Key, local: Client
) -> None:
    paths = ("/v1/bots/", "/v1/users/", "/v1/events/", "/v1/events/1/", "/v1/analytics/usage/",
             "/update-user/", "/metrics/", "/healthz/", "//evil.example/v1/bots/")  # fmt: skip
    for headers in ({}, key("auditor"), {"authorization": "Bearer hilo_no_key"}):
        for path in paths:
            for method in ("GET", "POST"):
                answer = await local.request(method, f"{stage.url}{path}", headers=headers)
                assert answer.status_code in {401, 404}, (method, path, answer.status_code)
                assert "location" not in answer.headers
