"""What every writer promises whoever appends, be it a thread or a process that writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import pytest

from eventstore.errors import (
    AppendRejected,
    Conflict,
    DuplicateKey,
    EpochMismatch,
    EventStoreError,
    LogUnavailable,
    QueueFull,
)
from eventstore.sqlite import SQLiteLog
from eventstore.store import Beat, LogStore
from eventstore.types import Append, Appended, Micros, NewEvent, Position, Snapshot, Version
from eventstore.writer import LogWriter, Writer
from eventstore.writer_process import ProcessWriter
from tests.conformance.appends import (
    ANA,
    BEN,
    FIRST_EPOCH,
    append,
    check,
    done,
    event,
    key,
    whole,
)
from tests.conformance.conftest import FACTORIES


class Kind(NamedTuple):
    """A store, and what writes it."""

    store: str
    writer: Callable[..., LogWriter]


KINDS = {
    "postgres-thread": Kind("postgres", Writer),
    "sqlite-process": Kind("sqlite", lambda log, **k: ProcessWriter(cast("SQLiteLog", log), **k)),
    "sqlite-thread": Kind("sqlite", Writer),
}


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def log(kind: Kind, tmp_path: Path) -> Iterator[LogStore]:
    factory = FACTORIES[kind.store](tmp_path)
    yield factory.open()
    factory.close()


@pytest.fixture
def writer(kind: Kind, log: LogStore) -> Iterator[LogWriter]:
    writer = kind.writer(log)
    yield writer
    writer.close()


async def ask(writer: LogWriter, *appends: Append) -> list[Appended | BaseException]:
    """Ask for all at once."""
    return await asyncio.gather(*map(writer.append, appends), return_exceptions=True)


async def test_each_is_told_where_its_own_events_are(writer: LogWriter, log: LogStore) -> None:
    wanted = [
        append(f"user/{n}", 0, *(event(f"{n}/{i}") for i in range(n % 4 + 1))) for n in range(200)
    ]
    answers = [done(answer) for answer in await ask(writer, *wanted)]
    assert writer.waiting == 0
    assert writer.last_failure is None
    events = whole(log)
    check(events)
    for append_, answer in zip(wanted, answers, strict=True):
        stored = events[answer.first_position - 1 : answer.last_position]
        assert [e.state for e in stored] == [e.state for e in append_.events]
        assert {e.append_id for e in stored} == {append_.append_id}
        assert stored[-1].version == answer.version
        assert stored[-1].recorded_at == answer.recorded_at


async def test_what_is_wrong_with_one_append_fails_its_caller_alone(
    writer: LogWriter, log: LogStore
) -> None:
    done(await writer.append(append(ANA, 0, event(keyed="taken"))))
    answers = await ask(
        writer,
        append(ANA, 1),
        append(ANA, 7),
        append(BEN, 0, event(keyed="taken")),
        append(BEN, 0, absent=["taken"]),
        append(BEN, 0, epoch=9),
        Append(BEN, Version(0), (), FIRST_EPOCH, append().append_id),
        append(BEN),
    )
    kinds = [
        Appended,
        Conflict,
        DuplicateKey,
        DuplicateKey,
        EpochMismatch,
        AppendRejected,
        Appended,
    ]
    assert [type(answer) for answer in answers] == kinds
    conflict, duplicate, epoch = answers[1], answers[2], answers[4]
    assert isinstance(conflict, Conflict)
    assert (conflict.stream, conflict.expected, conflict.actual) == (ANA, 7, 2)
    assert isinstance(duplicate, DuplicateKey)
    assert duplicate.key == key("taken")
    assert isinstance(epoch, EpochMismatch)
    assert (epoch.expected, epoch.actual) == (9, 1)
    assert writer.last_failure is None
    check(whole(log))


async def test_callers_are_answered_in_the_order_in_which_they_asked(writer: LogWriter) -> None:
    loop = asyncio.get_running_loop()
    order: list[int] = []
    last: asyncio.Future[None] = loop.create_future()

    def answered(number: int, answer: Appended | EventStoreError | Exception | None) -> None:
        order.append(number)
        if number == 59:
            last.set_result(None)

    for number in range(60):
        wrong = 5 if number % 7 == 3 else 0
        writer.send(append(f"user/{number}", wrong), partial(answered, number))
        if number % 10 == 9:
            await asyncio.sleep(0)
    await last
    assert order == list(range(60))


async def test_callers_of_one_stream_who_decide_again_all_get_their_turn(
    writer: LogWriter, log: LogStore
) -> None:
    async def caller() -> None:
        for _ in range(5):
            expected = log.stream_version(ANA)
            while True:
                try:
                    await writer.append(append(ANA, expected))
                    break
                except Conflict as conflict:
                    expected = conflict.actual

    await asyncio.gather(*(caller() for _ in range(8)))
    assert log.stream_version(ANA) == 40
    check(whole(log))


async def test_whoever_finds_the_queue_full_is_told_so_and_nothing_is_dropped(
    kind: Kind, log: LogStore
) -> None:
    writer = kind.writer(log, capacity=3)
    waiting = [asyncio.ensure_future(writer.append(append(f"user/{n}"))) for n in range(3)]
    await asyncio.sleep(0)
    assert writer.waiting == 3
    with pytest.raises(QueueFull) as full:
        await writer.append(append("user/3"))
    assert (full.value.waiting, full.value.retry_after) == (3, 1)
    assert [a.last_position for a in await asyncio.gather(*waiting)] == [1, 2, 3]
    assert (await writer.append(append("user/3"))).last_position == 4
    writer.close()


async def test_a_caller_who_gives_up_takes_nobody_along(writer: LogWriter, log: LogStore) -> None:
    tasks = [asyncio.ensure_future(writer.append(append(f"user/{n}"))) for n in range(5)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[3].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    told = [a.last_position for a in answers if isinstance(a, Appended)]
    assert told == [1, 3, 5]
    assert writer.waiting == 0
    check(whole(log))


@pytest.mark.parametrize("elsewhere", [True, False])
async def test_closing_commits_and_answers_what_waits(
    kind: Kind, log: LogStore, *, elsewhere: bool
) -> None:
    writer = kind.writer(log)
    done(await writer.append(append("user/first")))
    waiting = [asyncio.ensure_future(writer.append(append(f"user/{n}"))) for n in range(50)]
    await asyncio.sleep(0)
    if elsewhere:
        await asyncio.to_thread(writer.close)
    else:
        writer.close()
    assert log.head().position == 51
    assert [a.last_position for a in await asyncio.gather(*waiting)] == list(range(2, 52))
    with pytest.raises(LogUnavailable, match="shutting down"):
        await writer.append(append("user/late"))
    writer.close()


# -- listeners, snapshots and beats ------------------------------------------------------------


async def test_a_listener_hears_the_last_position_of_each_commit(writer: LogWriter) -> None:
    heard: list[Position] = []
    writer.listen(heard.append)
    await writer.append(append(ANA, 0, event(), event()))
    with pytest.raises(Conflict):
        await writer.append(append(ANA, 0))
    await writer.append(append(BEN))
    assert heard == [2, 3]


async def test_a_listener_that_fails_makes_no_durable_append_look_failed(
    writer: LogWriter, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Position] = []

    def broken(_: Position) -> None:
        msg = "broken listener"
        raise RuntimeError(msg)

    writer.listen(broken)
    writer.listen(heard.append)
    assert (await writer.append(append())).last_position == 1
    assert heard == [1]
    assert "broken listener" in caplog.text


async def test_snapshots_and_beats_are_written_along_with_appends(
    writer: LogWriter, log: LogStore
) -> None:
    snapshot = Snapshot(ANA, Version(1), FIRST_EPOCH, bytes(range(256)), b"state")
    said = bytes(range(256))
    await asyncio.gather(
        writer.save(Beat("quiet", "other", "1.0", Micros(5))),
        writer.append(append(ANA, 7)),
        writer.save(snapshot),
        writer.append(append(ANA)),
        writer.save(Beat("node", "first", "1.0", Micros(5), status=said)),
        return_exceptions=True,
    )
    assert log.snapshot(ANA) == snapshot
    assert {beat.node: beat.status for beat in log.nodes()} == {"node": said, "quiet": b""}
    assert log.stream_version(ANA) == 1
    await writer.save(Beat("node", "second", "1.1", Micros(6)))
    [node] = [beat for beat in log.nodes() if beat.node == "node"]
    assert (node.incarnation, node.release, node.started_at) == ("second", "1.1", 6)
    assert 0 < node.beat_at <= log.now()


async def test_a_node_that_ends_is_forgotten_unless_its_name_is_another_s_by_now(
    writer: LogWriter, log: LogStore
) -> None:
    await writer.save(Beat("node", "first", "1.0", Micros(5)))
    await writer.save(Beat("other", "one", "1.0", Micros(5)))
    await writer.save(Beat("node", "second", "1.0", Micros(6)))
    assert not log.forget_node("node", "first")
    assert len(log.nodes()) == 2
    assert log.forget_node("node", "second")
    assert [beat.node for beat in log.nodes()] == ["other"]


async def test_a_large_event_travels_whole(writer: LogWriter, log: LogStore) -> None:
    large = bytes(range(256)) * 12_000
    done(await writer.append(append(ANA, 0, NewEvent("Said", large))))
    assert [e.state for e in log.read()] == [large]
