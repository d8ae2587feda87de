"""Exports over HTTP: every format, by role, bounded, and ended with whoever asked for them."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from app import reads
from app.aggregates import events as e
from app.children import Piped, piped
from tests.integration.api.conftest import Client
from tests.integration.cli.house import ANA, House
from tests.integration.turns.stage import Stage

Key = Callable[..., dict[str, str]]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_the_log_is_exported_as_it_is_paged_and_opened_for_auditors_alone(
    stage: Stage, key: Key, local: Client
) -> None:
    auditor, analyst = key("auditor"), key("analyst")
    paged = (await local.get("/v1/events?limit=1000&until=12", headers=auditor)).json()["events"]
    whole = await local.get("/v1/exports/log?until=12", headers=auditor)
    assert whole.headers["content-encoding"] == "gzip"
    assert lines(whole.text) == paged
    sealed = await local.get("/v1/exports/log?until=12", headers=analyst)
    assert len(lines(sealed.text)) == 12
    assert "hola, soy Ana" in whole.text
    assert "hola, soy Ana" not in sealed.text


async def test_filters_and_csv(stage: Stage, local: Client, house: House) -> None:
    ana = house.people[ANA]
    query = f"format=csv&user={ana}&type=TokensIncremented"
    plain = {"accept-encoding": "identity"}
    answer = await local.get(f"/v1/exports/log?{query}", headers=plain)
    (row,) = csv.DictReader(io.StringIO(answer.text, newline=""))
    assert (row["stream"], row["type"]) == (f"user/{ana}", "TokensIncremented")
    assert json.loads(row["state"])["total"] == 1_234
    assert answer.headers["content-type"].startswith("text/csv")
    inside = await local.get("/v1/exports/log?since=2&until=1")
    assert (inside.status_code, inside.text) == (200, "")


async def test_a_read_model_now_and_as_of_then(
    stage: Stage, key: Key, local: Client, house: House
) -> None:
    await stage.until(lambda: stage.bot.follower.progress.position == stage.bot.log.head().position)
    now = lines((await local.get("/v1/exports/token_totals")).text)
    assert [row["tokens"] for row in now] == [1_234]
    then = await local.get("/v1/exports/thread_map?as_of=1")
    assert len(lines(then.text)) == 1
    seen = {}
    for role in ("auditor", "analyst"):
        rows = lines((await local.get("/v1/exports/client_view", headers=key(role))).text)
        seen[role] = next(row["chatId"] for row in rows if row["userId"] == house.people[ANA])
    assert seen == {"auditor": f"{ANA}@s.whatsapp.net", "analyst": "•••"}
    assert (await local.get("/v1/exports/nothing")).status_code == 401  # there are keys now


async def test_the_table_that_is_named(stage: Stage, local: Client, house: House) -> None:
    with House(house.data) as again:
        again.people = house.people
        left = e.ThreadReset(thread="conv_5678", reason="cleanup", left_behind=1_234)
        end = again.append(ANA, left).last_position
    await stage.until(lambda: stage.bot.follower.progress.position >= end)
    first = await local.get("/v1/exports/cleanup_log")
    assert first.headers["x-hilo-table"] == "cleanups"
    assert first.headers["x-hilo-tables"] == "cleanups, cleaned_threads, ThreadCleanupLog"
    assert 'filename="cleanup_log.jsonl"' in first.headers["content-disposition"]
    (run,) = lines(first.text)
    named = await local.get("/v1/exports/cleanup_log?table=cleaned_threads")
    assert 'filename="cleaned_threads.jsonl"' in named.headers["content-disposition"]
    (row,) = lines(named.text)
    assert (row["cleanup"], row["user"]) == (run["id"], house.people[ANA])
    (seen,) = lines((await local.get("/v1/exports/cleanup_log?table=ThreadCleanupLog")).text)
    assert seen["total_tokens_cleared"] == 1_234
    wrong = await local.get("/v1/exports/cleanup_log?table=turns")
    assert (wrong.status_code, wrong.json()["type"]) == (422, "/problems/cannot-export")
    assert "cleaned_threads" in wrong.json()["detail"]


async def test_the_other_name_of_the_client_view_is_masked_as_well(
    stage: Stage, key: Key, local: Client
) -> None:
    await stage.until(lambda: stage.bot.follower.progress.position == stage.bot.log.head().position)
    url = "/v1/exports/client_view?table="
    answers = [
        await local.get(url + table, headers=key("analyst"))
        for table in ("ClientView", "client_view")
    ]
    assert answers[0].text == answers[1].text
    assert {row["chatId"] for row in lines(answers[0].text)} == {"•••"}


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="an optional extra")
async def test_parquet(stage: Stage, local: Client) -> None:
    from pyarrow import parquet  # noqa: PLC0415

    answer = await local.get("/v1/exports/log?format=parquet&until=12")
    table = parquet.read_table(io.BytesIO(answer.content))
    assert table["position"].to_pylist() == list(range(1, 13))
    answer = await local.get("/v1/exports/thread_map?format=parquet")
    people = parquet.read_table(io.BytesIO(answer.content))
    assert people["messages_in"].to_pylist() == [1, 1, 1]


async def test_so_many_at_once_and_no_more(
    stage: Stage, local: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "EXPORTS", 0)
    answer = await local.get("/v1/exports/log")
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/too-many-exports")


async def test_an_export_that_nobody_reads_is_ended(
    stage: Stage, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Piped] = []

    async def noted(command: Sequence[str]) -> Piped:
        started.append(await piped(command))
        return started[-1]

    monkeypatch.setattr(reads, "piped", noted)
    with House(house.data) as again:
        again.people = house.people
        for number in range(200):  # more than the pipe, the sockets and the server hold
            again.write(ANA, f"{number}" + "x" * 30_000)
    async with Client(base_url=stage.url, timeout=10) as client:
        plain = {"accept-encoding": "identity"}
        async with client.stream("GET", "/v1/exports/log", headers=plain) as answer:
            await anext(answer.aiter_bytes())
            (child,) = started
            assert not child.ended
    await stage.until(lambda: child.ended)
