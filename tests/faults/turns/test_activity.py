"""A server that dies with an activity still to be recorded: it is recorded after the next start."""

from __future__ import annotations

import signal

import pytest

from app.aggregates import events as e
from app.conversation.crash import ACTIVITY_POINTS
from tests.integration.turns.processes import Server

pytestmark = pytest.mark.slow

ANA = "15550103201"


async def talked(server: Server, *, crash_at: str = "") -> None:
    """Let somebody be answered once, with 600 tokens."""
    await server.outside.report(600)
    await server.start(crash_at=crash_at)
    await server.outside.say(ANA)
    await server.outside.reads(ANA)
    await server.settled()


def recorded(server: Server) -> list[int]:
    """Return the counts that the log's records hold."""
    told = [told.event for told in server.story().all(e.ActivityRecorded)]
    return [event.tokens for event in told if isinstance(event, e.ActivityRecorded)]


async def test_what_was_waiting_when_it_was_killed_is_recorded_afterwards(server: Server) -> None:
    await talked(server)
    await server.kill()
    assert recorded(server) == []
    server.set("HILO_ACTIVITY_SECONDS", "0.1")
    await server.start()
    await server.until(lambda: recorded(server) == [600])
    assert await server.stop() == 0
    assert recorded(server) == [600]


@pytest.mark.parametrize("point", ACTIVITY_POINTS)
@pytest.mark.parametrize("when", ["when it is due", "at the shutdown"])
async def test_a_crash_around_the_record_neither_loses_nor_repeats_it(
    server: Server, point: str, when: str
) -> None:
    if when == "when it is due":
        server.set("HILO_ACTIVITY_SECONDS", "1.5")
    await talked(server, crash_at=point)
    if when == "at the shutdown":
        assert await server.stop() == -signal.SIGKILL
    else:
        assert await server.dies() == -signal.SIGKILL, f"{point} was never reached"
    assert recorded(server) == ([] if point.startswith("before") else [600])
    await server.start()
    assert await server.stop() == 0
    assert recorded(server) == [600]
