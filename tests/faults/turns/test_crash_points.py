"""The server dies at each named crash point; started again, it keeps every promise."""

from __future__ import annotations

import signal

import pytest

from app.aggregates import events as e
from app.conversation.crash import POINTS
from tests.integration.turns.outside import RESPONSES, Said
from tests.integration.turns.processes import Server

pytestmark = pytest.mark.slow

ANA, EVA = "15550100001", "15550100002"
GIVEN_UP = {"after_turn_parked"}
"""Points after which an apology is the answer."""

ADOPTED = {*POINTS[POINTS.index("after_run_submitted") :]} - {"after_run_failed", *GIVEN_UP}
"""Points at which OpenAI's answer is there, or will be."""


async def crash(server: Server, point: str) -> list[Said]:
    """Make the server die at a point, which it must reach; return what it was to answer."""
    outside = server.outside
    if point == "during_recovery":
        await server.start(crash_at="after_run_submitted")
        said = [await outside.say(ANA)]
        assert await server.dies() == -signal.SIGKILL
        await server.start(crash_at=point, wait=False)
        assert await server.dies() == -signal.SIGKILL, f"{point} was never reached"
        return said
    if point == "after_run_failed":
        await outside.break_openai(RESPONSES, "status", status=500)
    if point == "after_turn_parked":
        await outside.break_openai(RESPONSES, "status", status=401)
    await server.start(crash_at=point)
    said = [await outside.say(ANA), await outside.say(ANA, "sigo")]
    assert await server.dies() == -signal.SIGKILL, f"{point} was never reached"
    return said


async def is_whole_again(server: Server, point: str, said: list[Said]) -> None:
    """Start the server and hold it to every promise."""
    outside = server.outside
    await server.start()
    if point in GIVEN_UP:
        for message in said:
            outside.expect(message, "silence")
    await outside.say(EVA, "después")
    await outside.reads(EVA)
    await outside.reads(ANA)
    await server.settled()
    story = server.story()
    assert story.count(e.TurnParked) == (point in GIVEN_UP)
    assert story.count(e.DeliveryUncertain) == 0
    assert await server.stop() == 0


@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_at_any_point_loses_nothing_and_answers_nothing_twice(
    server: Server, point: str
) -> None:
    said = await crash(server, point)
    await is_whole_again(server, point, said)
    story, account = server.story(), await server.outside.openai_account()
    if point in ADOPTED:
        assert len(account.responses) == 2, "what was submitted is adopted, not run again"
        assert story.count(e.UsageUnknown) == 0
    if point in ("after_delivery_started", "before_message_sent"):
        assert (await server.outside.whapi_account()).sent == 2


@pytest.mark.parametrize("point", ["before_run_submitted", "after_run_submitted"])
async def test_so_does_a_crash_in_the_middle_of_a_streamed_run(server: Server, point: str) -> None:
    server.set("HILO_OPENAI_MODE", "stream")
    await server.outside.pace(400)
    said = await crash(server, point)
    await is_whole_again(server, point, said)
    cancelled = [
        r for r in (await server.outside.openai_account()).responses if r.status != "completed"
    ]
    assert [r.status for r in cancelled] == ["cancelled"]


async def test_a_crash_while_the_model_thinks_leaves_nothing_of_it_in_the_conversation(
    server: Server,
) -> None:
    outside = server.outside
    await outside.pace(2500)
    said = await crash(server, "before_run_submitted")
    await is_whole_again(server, "before_run_submitted", said)
    asked_about = {r.conversation for r in (await outside.openai_account()).responses}
    texts = [str(item) for one in asked_about if one for item in await outside.items(one)]
    for message in said:
        assert sum(message.token in text for text in texts) == 2, "one question, one answer"
