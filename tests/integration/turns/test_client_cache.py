"""The client cache (A6, A12): fed by the log, and whatever fails, there is an answer and a line."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from app import cli, logs
from app.aggregates import events as e
from app.caches import Expiring
from app.conversation.client_cache import ClientCache, Kept
from app.projections import clients
from eventstore.types import StreamName
from tests.integration.turns.stage import Stage
from tests.integration.turns.test_facts import envelope, text

ANA = "15550103301"
HOUR = 3600.0


async def talked(stage: Stage, **settings: object) -> StreamName:
    """Let somebody be answered with 600 tokens, recorded; return their stream."""
    outside = await stage.open(**settings)
    await outside.report(600)
    await outside.say(ANA)
    await outside.reads(ANA)
    await stage.settled()
    (stream,) = stage.story().states
    return StreamName(stream)


class Failing(Expiring[StreamName, Kept]):
    """A map of which one method fails, as if memory did."""

    def __init__(self, method: str) -> None:
        super().__init__(limit=10, ttl=HOUR)
        self.method = method

    def __getattribute__(self, name: str) -> Any:  # noqa: ANN401 - any attribute
        if name == object.__getattribute__(self, "__dict__").get("method"):
            return _fail
        return object.__getattribute__(self, name)


def _fail(*_: object) -> None:
    raise MemoryError


def cache_of(stage: Stage, kept: Expiring[StreamName, Kept]) -> ClientCache:
    """Return another cache of the stage's bot."""
    bot = stage.bot
    return ClientCache(kept, views=bot.views, users=bot.users, readers=bot.readers)


async def test_it_says_what_the_read_model_says_once_that_has_followed(stage: Stage) -> None:
    stream = await talked(stage, activity_seconds=0.2)
    bot = stage.bot
    first = await bot.clients.get(stream)
    assert first.thread_id is not None
    await stage.has(e.ActivityRecorded)
    await stage.until(lambda: bot.clients.known(stream) != first)
    fed = await bot.clients.get(stream)
    assert fed.thread_token_count == 600
    user = stream.removeprefix("user/")

    def model() -> object:
        shown = clients.client(bot.views, user)
        return None if shown is None else (shown.last_activity, shown.thread_token_count)

    await stage.until(lambda: model() == (fed.last_activity, 600))
    bot.clients.invalidate(stream)
    assert bot.clients.known(stream) is None
    assert await bot.clients.get(stream) == clients.client(bot.views, user)
    figures = bot.caches.figures()["clients"]
    assert (figures.limit, figures.ttl_seconds, figures.size) == (1000, 12 * HOUR, 1)
    assert figures.hits >= 2
    assert figures.misses >= 2


async def test_in_steady_traffic_memory_finds_the_thread_of_19_messages_of_20(stage: Stage) -> None:
    outside = await stage.open()
    people = [f"155501033{number}" for number in range(10, 20)]
    for phone in people:
        await outside.say(phone)
        await outside.reads(phone)
    await stage.settled()
    await stage.stop_bot()
    await stage.start_bot(quiet_seconds=3600, longest_seconds=7200)  # with an empty memory
    for round_ in range(20):
        messages = [text(phone, f"steady-{round_}-{phone}", "hola") for phone in people]
        answer = await stage.post(msgspec.json.encode(envelope(*messages)))
        assert answer.json() == {"received": len(people)}
    figures = stage.bot.caches.figures()["user_states"]
    messages_in = stage.bot.numbers()["facts_message_person"]
    assert messages_in == 20 * len(people)
    assert figures.misses / messages_in <= 0.05
    assert figures.hits >= 0.95 * messages_in
    assert 0 < figures.access_seconds < 0.001
    for stream in stage.story().states:
        state = stage.bot.users.state(StreamName(stream))
        assert state is not None
        assert state.thread is not None


async def test_the_figures_of_every_map_are_shown(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = await talked(stage)
    for _ in range(20):
        await stage.bot.clients.get(stream)
    data = stage.directory / "data"
    command = ["cache", "stats", "--json", "--data", str(data)]
    assert await asyncio.to_thread(cli.main, command) == 3
    (data / "serve.json").write_bytes(msgspec.json.encode({"url": stage.url}))
    capsys.readouterr()
    assert await asyncio.to_thread(cli.main, command) == 0
    rows = {row["map"]: row for row in msgspec.json.decode(capsys.readouterr().out)["caches"]}
    maps = {"clients", "user_states", "checked_threads", "identities", "keys"}
    assert rows.keys() >= maps | {"stream_names", "pasts", "key_rates"}
    assert all(0 <= row["size"] <= row["limit"] for row in rows.values())
    shown = rows["clients"]
    assert (shown["size"], shown["limit"], shown["ttl_seconds"]) == (1, 1000, 43_200)
    assert (shown["hits"], shown["misses"], shown["hit_rate"]) == (19, 1, 0.95)
    assert 0 < shown["access_us"] < 1000
    assert rows["user_states"]["ttl_seconds"] == 86_400
    assert rows["user_states"]["hits"] > 0
    assert 0 < rows["user_states"]["access_us"] < 1000


@pytest.mark.parametrize(
    ("method", "category"),
    [
        ("get", "CACHE_ACCESS_ERROR"),
        ("put", "CACHE_UPDATE_FROM_BD_ERROR"),
        ("peek", "CACHE_NEEDS_UPDATE_ERROR"),
        ("replace", "CACHE_UPDATE_ERROR"),
        ("discard", "CACHE_INVALIDATE_ERROR"),
    ],
)
async def test_a_failing_memory_stops_nothing(stage: Stage, method: str, category: str) -> None:
    stream = await talked(stage)
    cache = cache_of(stage, Failing(method))
    state = (await stage.bot.users.look(stream)).state
    with capture_logs() as lines:
        found = await cache.get(stream)
        cache.changed(stream, replace(state, thread=None))
        cache.invalidate(stream)
    assert found.thread_id is not None
    assert category in {line["event"] for line in lines}
    for line in lines:
        assert (line["userId"], line["error"]) == (stream.removeprefix("user/"), "MemoryError")


async def test_without_a_read_model_the_log_knows_and_without_both_there_is_little(
    stage: Stage,
) -> None:
    stream = await talked(stage)
    nobody = StreamName("user/nobody")
    with stage.bot.views.transaction() as db:
        db.execute("DROP VIEW ClientView")
        db.execute("DROP TABLE client_view")
    cache = cache_of(stage, Expiring(limit=10, ttl=HOUR))
    with capture_logs() as lines:
        assert (await cache.get(stream)).thread_id is not None
        minimal = await cache.get(nobody)
    assert (minimal.user, minimal.chat, minimal.thread_token_count) == ("nobody", None, 0)
    told = [(line["event"], line["userId"]) for line in lines if line["event"].startswith("BD_")]
    assert ("BD_USER_ERROR", stream.removeprefix("user/")) in told
    assert told[-2:] == [("BD_USER_ERROR", "nobody"), ("BD_NO_DATA", "nobody")]


async def test_the_greps_of_m003_find_their_lines(stage: Stage, tmp_path: Path) -> None:
    grep = shutil.which("grep")
    assert grep is not None
    logs.configure(tmp_path / "logs")
    try:
        stream = await talked(stage)
        await cache_of(stage, Failing("get")).get(stream)
        await cache_of(stage, Expiring(limit=1, ttl=HOUR)).get(StreamName("user/nobody"))
        await stage.bot.activity.flush([stream])
        other = await stage.outside.conversation()
        now = stage.bot.log.now()
        await stage.bot.users.decide(stream, lambda user: user.start_thread(other, now=now))
        await stage.bot.activity.flush([stream])
    finally:
        await stage.stop_bot()
        logs.configure(None)

    def found(pattern: str) -> list[str]:
        asked = [grep, pattern, str(tmp_path / "logs" / "technical.log")]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        return done.stdout.splitlines()

    user = stream.removeprefix("user/")
    (failed,) = found("CACHE_.*_ERROR")
    assert f"CACHE_ACCESS_ERROR userId='{user}'" in failed
    assert found("BD_NO_DATA")
    assert not found("BD_.*_ERROR")
    (changed,) = found("THREAD_TOKENS_RESET.*thread_changed")
    assert found("tokensLost.*[1-9]") == [changed]
    assert changed.endswith(f"userId='{user}' resetReason='thread_changed' tokensLost=600")
    (new,) = found("resetReason.*user_not_found")
    assert new.endswith(f"THREAD_TOKENS_RESET userId='{user}' resetReason='user_not_found'")
