"""While releases are mixed: what a newer one has begun is left to its nodes."""

from __future__ import annotations

from eventstore.types import Append, NewEvent, StreamName, new_append_id
from tests.integration.turns.stage import Stage

ANA, EVA = "15550109001", "15550109002"


async def test_a_stream_with_an_event_of_a_newer_release_is_left_to_its_nodes(
    stage: Stage,
) -> None:
    outside = await stage.open()
    await outside.say(ANA)
    await outside.reads(ANA)
    await stage.settled()
    log, writer = stage.bot.log, stage.bot.writer
    (stream,) = [StreamName(info.name) for info in log.streams("user/")]
    newer = NewEvent("OfTheNextRelease", b"\x80")
    epoch = log.head().epoch
    await writer.append(
        Append(stream, log.stream_version(stream), (newer,), epoch, new_append_id())
    )
    await outside.say(ANA, expect="silence")
    await outside.delivered()
    await outside.say(EVA)
    await outside.reads(EVA)
    counts = log.count_by_type()
    assert counts["MessageReceived"] == 3, "facts are recorded"
    assert counts["RunStarted"] == 2, "and nothing is decided"
    assert stream in stage.bot.todo.streams(), "it stays on the list"
    assert stream not in stage.bot.dispatcher._due, "but nobody is sent there"
