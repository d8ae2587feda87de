"""Many callers before one writer: who shares a commit, who is answered what, and when."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from eventstore.errors import Conflict, DuplicateKey, LogUnavailable, QueueFull
from eventstore.store import Beat, LogStore
from eventstore.types import Append, Appended, Micros, Snapshot, Version
from eventstore.writer import Writer
from tests.conformance.appends import (
    ANA,
    BEN,
    FIRST_EPOCH,
    append,
    check,
    done,
    event,
    grow,
    key,
    whole,
)
from tests.conformance.held import HeldCommits
from tests.conformance.stores import FakeClock, StoreFactory

Answer = asyncio.Task[Appended]


@pytest.fixture
def held(log: LogStore) -> Iterator[HeldCommits]:
    """The log, whose commits wait for the test."""
    held = HeldCommits(log)
    yield held
    held.gate.open()


async def begin(writer: Writer, *appends: Append) -> list[Answer]:
    """Ask for each append and let every task run until it waits for the disk."""
    answers = [asyncio.ensure_future(writer.append(wanted)) for wanted in appends]
    await run_on()
    return answers


async def run_on() -> None:
    """Let every task run until it waits for something outside this event loop."""
    for _ in range(10):
        await asyncio.sleep(0)


async def in_the_commit(held: HeldCommits, writer: Writer, wanted: Append) -> Answer:
    """Ask for an append and return when its commit stands before the gate."""
    [answer] = await begin(writer, wanted)
    await asyncio.to_thread(held.gate.wait_for_commit)
    return answer


async def outcomes(*answers: Answer) -> list[Appended | BaseException]:
    return await asyncio.gather(*answers, return_exceptions=True)


async def test_callers_who_wait_at_once_share_one_transaction(
    log: LogStore, held: HeldCommits, store_factory: StoreFactory
) -> None:
    commits = store_factory.commits(log)
    writer = held.writer()
    first = await in_the_commit(held, writer, append("user/first"))
    others = await begin(writer, *(append(f"user/{i}") for i in range(64)))
    held.gate.open()
    assert all(isinstance(answer, Appended) for answer in await outcomes(first, *others))
    writer.close()
    assert [len(batch) for batch in held.batches] == [1, 64]
    assert len(commits) == 2


async def test_nobody_is_answered_before_the_commit(
    log: LogStore, held: HeldCommits, store_factory: StoreFactory
) -> None:
    elsewhere = store_factory.open()
    writer = held.writer()
    answer = await in_the_commit(held, writer, append())
    await run_on()
    assert not answer.done()
    assert elsewhere.head().position == 0
    held.gate.let_one_through()
    assert (await answer).last_position == elsewhere.head().position == 1
    writer.close()


async def test_a_refusal_too_is_answered_only_with_the_commit(held: HeldCommits) -> None:
    writer = held.writer()
    conflict = await in_the_commit(held, writer, append(ANA, 7))
    await run_on()
    assert not conflict.done()
    held.gate.let_one_through()
    with pytest.raises(Conflict):
        await conflict
    writer.close()


async def test_a_duplicate_of_a_message_in_the_queue_is_not_acknowledged_before_it_is_durable(
    log: LogStore, held: HeldCommits
) -> None:
    writer = held.writer()
    original = await in_the_commit(held, writer, append(ANA, 0, event(keyed="wamid")))
    [duplicate] = await begin(writer, append(BEN, 0, event(keyed="wamid")))
    assert not duplicate.done()
    held.gate.let_one_through()
    assert (await original).last_position == 1
    await asyncio.to_thread(held.gate.wait_for_commit)
    await run_on()
    assert not duplicate.done()
    held.gate.let_one_through()
    with pytest.raises(DuplicateKey):
        await duplicate
    assert log.event_by_key(key("wamid")) is not None
    writer.close()


async def test_if_the_original_in_the_queue_fails_its_duplicate_is_decided_on_its_own(
    log: LogStore, held: HeldCommits
) -> None:
    held.fail_next = LogUnavailable("no space")
    writer = held.writer()
    original = await in_the_commit(held, writer, append(ANA, 0, event(keyed="wamid")))
    [duplicate] = await begin(writer, append(ANA, 0, event(keyed="wamid")))
    held.gate.open()
    assert isinstance((await outcomes(original))[0], LogUnavailable)
    assert (await duplicate).last_position == 1
    writer.close()


async def test_one_caller_s_conflict_fails_that_caller_alone(
    log: LogStore, held: HeldCommits
) -> None:
    writer = held.writer()
    first = await in_the_commit(held, writer, append(ANA))
    rest = await begin(writer, append(BEN), append(ANA), append(ANA, 1), append(BEN, 1))
    held.gate.open()
    answers = await outcomes(first, *rest)
    assert [type(a) for a in answers] == [Appended, Appended, Conflict, Appended, Appended]
    assert [len(batch) for batch in held.batches] == [1, 4]
    writer.close()
    check(whole(log))


async def test_a_full_queue_says_so_and_drops_nothing(log: LogStore, held: HeldCommits) -> None:
    writer = held.writer(capacity=3)
    first = await in_the_commit(held, writer, append("user/0"))
    waiting = await begin(writer, append("user/1"), append("user/2"))
    assert writer.waiting == 3
    with pytest.raises(QueueFull) as full:
        await writer.append(append("user/3"))
    assert (full.value.waiting, full.value.retry_after) == (3, 1)
    assert isinstance(full.value, LogUnavailable)
    held.gate.open()
    assert [type(a) for a in await outcomes(first, *waiting)] == [Appended] * 3
    assert (await writer.append(append("user/3"))).last_position == 4
    assert [s.name for s in log.streams()] == [f"user/{i}" for i in range(4)]
    writer.close()


async def test_a_caller_who_gives_up_takes_nobody_along(log: LogStore, held: HeldCommits) -> None:
    writer = held.writer()
    first = await in_the_commit(held, writer, append(ANA))
    gone, stays = await begin(writer, append(BEN), append("user/c"))
    first.cancel()
    gone.cancel()
    held.gate.open()
    assert (await stays).last_position == 3
    writer.close()
    check(whole(log))


async def test_a_writer_that_closes_commits_and_answers_what_waits(
    log: LogStore, held: HeldCommits
) -> None:
    writer = held.writer()
    first = await in_the_commit(held, writer, append(ANA))
    rest = await begin(writer, append(BEN), append("user/c"))
    closing = asyncio.ensure_future(asyncio.to_thread(writer.close))
    held.gate.open()
    await closing
    assert [type(a) for a in await outcomes(first, *rest)] == [Appended] * 3
    with pytest.raises(LogUnavailable):
        await writer.append(append("user/d"))
    writer.close()
    assert log.head().position == 3


def test_threads_and_tasks_write_through_one_writer(writer: Writer, log: LogStore) -> None:
    async def tasks() -> list[Appended]:
        return await asyncio.gather(*(writer.append(append(f"task/{i}")) for i in range(50)))

    def thread(i: int) -> Appended:
        return writer.append_blocking(append(f"thread/{i}"))

    with ThreadPoolExecutor(9) as pool:
        loops = [pool.submit(asyncio.run, tasks()) for _ in range(1)]
        threads = list(pool.map(thread, range(50)))
        answers = [a for loop in loops for a in loop.result()] + threads
    assert sorted(a.last_position for a in answers) == list(range(1, 101))
    check(whole(log))


# -- snapshots and beats ------------------------------------------------------------


async def test_snapshots_and_beats_travel_with_the_next_commit(
    log: LogStore, held: HeldCommits, store_factory: StoreFactory
) -> None:
    commits = store_factory.commits(log)
    writer = held.writer()
    first = await in_the_commit(held, writer, append())
    snapshot = Snapshot(ANA, Version(1), FIRST_EPOCH, b"shape", b"state")
    saving = [
        asyncio.ensure_future(writer.save(snapshot)),
        asyncio.ensure_future(writer.save(Beat("node", "incarnation", "1.0", Micros(1)))),
    ]
    [second] = await begin(writer, append(BEN))
    held.gate.open()
    await asyncio.gather(first, second, *saving)
    writer.close()
    assert len(commits) == 2
    assert log.snapshot(ANA) == snapshot
    assert [beat.node for beat in log.nodes()] == ["node"]


def test_a_node_beats_with_the_store_s_time(log: LogStore, writer: Writer) -> None:
    beat = Beat("node", "first", "1.0", Micros(5))
    asyncio.run(writer.save(beat))
    asyncio.run(writer.save(Beat("node", "second", "1.1", Micros(6))))
    [kept] = log.nodes()
    assert (kept.incarnation, kept.release, kept.started_at) == ("second", "1.1", 6)
    assert kept.beat_at == log.now()


def test_nodes_that_were_silent_for_long_are_forgotten(
    log: LogStore, writer: Writer, clock: FakeClock
) -> None:
    asyncio.run(writer.save(Beat("old", "first", "1.0", Micros(5))))
    clock.move(10)
    asyncio.run(writer.save(Beat("new", "second", "1.0", Micros(5))))
    [new, old] = log.nodes()
    assert log.forget_nodes(old.beat_at) == 0
    assert log.forget_nodes(new.beat_at) == 1
    assert log.nodes() == [new]


async def test_a_beat_that_was_not_written_is_not_answered_as_if_it_were(
    log: LogStore, writer: Writer, store_factory: StoreFactory
) -> None:
    store_factory.break_commit(log, "before", store_factory.commit_error())
    with pytest.raises(LogUnavailable):
        await writer.save(Beat("node", "incarnation", "1.0", Micros(1)))
    assert log.nodes() == []
    held = HeldCommits(log)
    again = held.writer()
    first = await in_the_commit(held, again, append())
    store_factory.break_commit(log, "before", store_factory.commit_error())
    held.fail_next = LogUnavailable("no space")
    beat = asyncio.ensure_future(again.save(Beat("node", "incarnation", "1.0", Micros(1))))
    [second] = await begin(again, append(BEN))
    held.gate.open()
    answers = await asyncio.gather(first, beat, second, return_exceptions=True)
    again.close()
    assert [type(a) for a in answers] == [LogUnavailable] * 3
    done(log.append_batch([append()])[0])


def test_many_threads_may_read_while_one_writes(log: LogStore) -> None:
    stop = threading.Event()

    def reader() -> int:
        reads = 0
        while not stop.is_set():
            check(whole(log))
            reads += 1
        return reads

    with ThreadPoolExecutor(6) as pool:
        readers = [pool.submit(reader) for _ in range(6)]
        grow(log, [3] * 60)
        stop.set()
        assert all(r.result() for r in readers)
