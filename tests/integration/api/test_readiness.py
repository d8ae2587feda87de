"""What `/readyz` says while traffic is taken and something else does not go well."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.lock import exclusive
from eventstore.types import Position
from tests.integration.api.conftest import Client
from tests.integration.cli.house import House
from tests.integration.turns.stage import Stage

ANA, EVA = "15550109301", "15550109302"
READS = ("threads", "users", "tokens", "cleanups", "analytics/usage", "analytics/gateway")


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[Stage]:
    """A bot that was never opened, whose read models a process keeps, as `hilo serve` has it."""
    stage = Stage(tmp_path, read_models="process", quiet_seconds=3600, longest_seconds=7200)
    yield stage
    await stage.close()


async def said(client: Client) -> tuple[int, dict[str, Any]]:
    """What `/readyz` answers."""
    answer = await client.get("/readyz")
    return answer.status_code, answer.json()


async def test_whoever_reads_a_new_bot_at_once_finds_nothing_and_not_that_something_is_missing(
    bare: Stage,
) -> None:
    await bare.open()
    async with httpx2.AsyncClient(base_url=bare.url, timeout=10) as client:
        for path in READS:
            answer = await client.get(f"/v1/{path}")
            assert (answer.status_code, answer.json()["position"]) == (200, 0), path
        assert (await said(client))[1]["reason"] == ""
        await bare.outside.say(ANA, "hola")
        await bare.until(lambda: bare.bot.log.head().position > 0)
        end = bare.bot.log.head().position
        shown = (await client.get(f"/v1/threads?min_position={end}")).json()
        assert len(shown["threads"]) == 1, "what was begun empty follows the log"


async def test_traffic_is_taken_while_read_models_are_built_and_readers_are_told_when_to_ask(
    bare: Stage, house: House
) -> None:
    assert house.people
    directory = bare.directory / "data" / "default"
    with exclusive(directory / "views.rebuild.lock", "a build that takes long"):
        await bare.open()
        async with httpx2.AsyncClient(base_url=bare.url, timeout=10) as client:
            code, told = await said(client)
            assert (code, told["status"]) == (200, "ready")
            assert told["reason"] == told["bots"][0]["reason"]
            assert told["reason"].startswith("the read models are being built")
            for path in READS:
                answer = await client.get(f"/v1/{path}")
                seconds = answer.headers["retry-after"]
                assert (answer.status_code, int(seconds) >= 1) == (503, True), path
                assert f"try again in {seconds} s" in answer.json()["detail"]
            bare.bot.position = Position(10_000_000)  # the longer the log, the longer it takes
            answer = await client.get("/v1/threads")
            assert 90 < int(answer.headers["retry-after"]) <= 102
    await bare.until(lambda: bare.bot.follower.progress.unbuilt_seconds is None)
    async with httpx2.AsyncClient(base_url=bare.url, timeout=10) as client:
        assert (await said(client))[1]["reason"] == ""
        assert len((await client.get("/v1/threads")).json()["threads"]) == 3


async def test_that_new_people_get_no_key_is_told_though_others_are_served(
    stage: Stage, local: Client
) -> None:
    await stage.outside.say(ANA, "hola")
    await stage.until(lambda: stage.bot.receiver.counts["message_person"] == 1)
    keys = stage.directory / "data" / "default" / "keys.db"
    away = keys.rename(keys.with_suffix(".away"))
    await stage.outside.say(EVA, "hola")
    await stage.until(lambda: stage.bot.identities.failures > 0)
    await stage.outside.say(ANA, "sigo aquí")
    await stage.until(lambda: stage.bot.receiver.counts["message_person"] == 2)
    code, told = await said(local)
    assert (code, told["status"]) == (200, "ready")
    assert told["reason"].startswith("no key can be made")
    assert 'hilo_keys_failing{bot="default"} 1.0' in (await local.get("/metrics")).text

    away.rename(keys)
    await stage.bot.identities.try_again()
    assert (await said(local))[1]["reason"] == ""
    numbers = (await local.get("/metrics")).text
    assert 'hilo_keys_failing{bot="default"} 0.0' in numbers
    assert 'hilo_keys_failures_total{bot="default"} 0.0' not in numbers
    await stage.until(lambda: stage.bot.receiver.counts["message_person"] == 3)
