"""Last activity and token count of the client view: together, a while after the last event (A9)."""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from app.aggregates import events as e
from app.aggregates.user_state import UserState
from app.times import iso
from eventstore.codec import Event
from eventstore.keyring import Handle
from eventstore.types import StreamName
from tests.integration.turns.outside import PATIENCE
from tests.integration.turns.stage import Stage
from tests.postgres import Databases

ANA, EVA, BEN, CID = "15550103101", "15550103102", "15550103103", "15550103104"
TOUCHING = (
    e.MessageReceived,
    e.ThreadStarted,
    e.ThreadReset,
    e.RunCompleted,
    e.TokensIncremented,
    e.MessageSent,
)


async def talk(stage: Stage, *totals: int, phone: str = ANA) -> None:
    """Let somebody be answered as often as OpenAI is to report a number of tokens."""
    outside = stage.outside
    await outside.report(*totals)
    for _ in totals:
        before = len((await outside.whapi_account()).bodies(phone))
        await outside.say(phone)
        await outside.reads(phone, before + 1)
        await stage.settled()


async def restart(stage: Stage, **settings: object) -> None:
    """Stop the bot in good order, and start it again."""
    await stage.stop_bot()
    await stage.start_bot(**settings)


async def shown(stage: Stage) -> dict[str, Any]:
    """Return the only client, as the read API shows it."""
    position = stage.bot.log.head().position
    async with httpx2.AsyncClient(base_url=stage.url, timeout=PATIENCE) as client:
        answer = await client.get("/v1/users", params={"min_position": position})
    (found,) = answer.json()["users"]
    return dict(found)


def records(stage: Stage) -> list[tuple[str | None, int]]:
    """Return thread and count of each record of the log."""
    told = [told.event for told in stage.story().all(e.ActivityRecorded)]
    return [(event.thread, event.tokens) for event in told if isinstance(event, e.ActivityRecorded)]


def only(stage: Stage) -> tuple[StreamName, UserState]:
    """Return the only person."""
    ((stream, state),) = stage.story().states.items()
    return StreamName(stream), state


async def test_it_is_recorded_some_time_after_the_last_event_once(stage: Stage) -> None:
    await stage.open(activity_seconds=0.4)
    await talk(stage, 600)
    story = await stage.has(e.ActivityRecorded)
    (record,) = story.all(e.ActivityRecorded)
    last = max(told.at for told in story.all(*TOUCHING))
    assert record.at - last >= 400_000
    assert isinstance(record.event, e.ActivityRecorded)
    assert record.event.tokens == 600
    assert record.event.last_activity == last
    await stage.until(lambda: stage.bot.numbers()["activities_waiting"] == 0)
    view = await shown(stage)
    assert view["threadTokenCount"] == 600
    assert view["lastActivity"] is not None
    assert view["live"]["threadTokenCount"] == 600


async def test_until_then_the_client_view_stands_still(stage: Stage) -> None:
    await stage.open()
    await talk(stage, 600)
    view = await shown(stage)
    assert (view["threadTokenCount"], view["lastActivity"]) == (0, None)
    last = max(told.at for told in stage.story().all(e.MessageSent))
    assert view["live"] == {"threadTokenCount": 600, "lastActivity": iso(last)}
    assert stage.bot.numbers()["activities_waiting"] == 1
    assert stage.bot.numbers()["open_streams"] == 0


async def test_on_the_same_thread_the_numbers_of_m003_add_up(stage: Stage) -> None:
    await stage.open()
    await talk(stage, 600)
    await restart(stage)
    await talk(stage, 150, 200, 100)
    await restart(stage)
    thread = only(stage)[1].thread
    assert thread is not None
    assert records(stage) == [(thread.id, 600), (thread.id, 1050)]
    assert (await shown(stage))["threadTokenCount"] == 1050


async def test_on_another_thread_they_start_again_and_what_was_left_is_told(stage: Stage) -> None:
    outside = await stage.open()
    await talk(stage, 600)
    await restart(stage)
    stream, state = only(stage)
    assert state.thread is not None
    other = await outside.conversation()
    now = stage.bot.log.now()
    await stage.bot.users.decide(stream, lambda user: user.start_thread(other, now=now))
    await talk(stage, 150, 200, 100)
    await restart(stage)
    assert records(stage) == [(state.thread.id, 600), (other, 450)]
    (left,) = stage.story().all(e.ThreadReset)
    assert left.event == e.ThreadReset(
        thread=state.thread.id, reason="thread_changed", left_behind=600
    )
    view = await shown(stage)
    assert (view["threadId"], view["threadTokenCount"]) == (other, 450)


async def test_what_the_old_system_once_counted_wrong(stage: Stage) -> None:
    await stage.open()
    for total in (7415, 7699, 7851):
        await talk(stage, total)
        await restart(stage)
    assert [tokens for _, tokens in records(stage)] == [7415, 15114, 22965]


async def test_a_shutdown_without_news_records_nothing_more(stage: Stage) -> None:
    await stage.open()
    await talk(stage, 600)
    for _ in range(2):
        await restart(stage)
    kinds: list[type[Event]] = [type(told.event) for told in stage.story().told]
    assert kinds.count(e.ActivityRecorded) == 1
    assert kinds[-1] is e.ActivityRecorded


@pytest.fixture(params=["sqlite", "postgres"])
async def either(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    """A stage on one store, and on the other."""
    where: dict[str, object] = {}
    if request.param == "postgres":
        postgres: Databases = request.getfixturevalue("postgres")
        where["database_url"] = SecretStr(postgres.database())
        where["keys_database_url"] = SecretStr(postgres.database())
    stage = Stage(tmp_path, **where)
    try:
        yield stage
    finally:
        await stage.close()


def stream_of(stage: Stage, phone: str) -> StreamName:
    """Return the stream of somebody who has written."""
    return StreamName(f"user/{stage.bot.keyring.find((Handle('phone', phone),))}")


def resets(lines: list[MutableMapping[str, Any]]) -> dict[str, tuple[str, int]]:
    """Return, by stream, what the technical log says of counts that start again."""
    return {
        f"user/{line['userId']}": (line["resetReason"], line.get("tokensLost", 0))
        for line in lines
        if line["event"] == "THREAD_TOKENS_RESET"
    }


async def test_the_four_cases_of_m003_on_either_store(either: Stage) -> None:
    stage = either
    outside = await stage.open(quiet_seconds=3600, longest_seconds=7200)
    await outside.say(CID)  # active, and without a conversation when that is recorded
    await stage.has(e.MessageReceived)
    await restart(stage)
    await outside.reads(CID)
    await stage.settled()
    for phone in (ANA, BEN):
        await talk(stage, 600, phone=phone)
    ana, ben, cid = [stream_of(stage, phone) for phone in (ANA, BEN, CID)]
    with capture_logs() as lines:
        await restart(stage)
    assert resets(lines) == {
        ana: ("user_not_found", 0), ben: ("user_not_found", 0), cid: ("first_time", 0),
    }  # fmt: skip

    other, now = await outside.conversation(), stage.bot.log.now()
    await stage.bot.users.decide(ben, lambda user: user.start_thread(other, now=now))
    for phone in (ANA, BEN):
        await talk(stage, 150, 200, 100, phone=phone)
    await talk(stage, 42, phone=EVA)
    eva = stream_of(stage, EVA)
    with capture_logs() as lines:
        await restart(stage)
    assert resets(lines) == {ben: ("thread_changed", 600), eva: ("user_not_found", 0)}
    states = stage.story().states
    recorded = {stream: states[stream].recorded for stream in (ana, ben, eva)}
    counts = {stream: one and one.tokens for stream, one in recorded.items()}
    assert counts == {ana: 1050, ben: 450, eva: 42}
    (left,) = stage.story().all(e.ThreadReset)
    assert isinstance(left.event, e.ThreadReset)
    assert (left.event.reason, left.event.left_behind) == ("thread_changed", 600)
