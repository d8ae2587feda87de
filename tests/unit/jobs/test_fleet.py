"""A job of the fleet runs once a slot, whoever lives to run it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.aggregates import job_events as e
from app.conversation.agenda import GRACE
from app.conversation.kinds import JOBS
from app.conversation.nodes import SECOND, Nodes
from app.conversation.repository import Repository
from app.jobs.fleet import Fleet, FleetJob
from app.jobs.slots import Every
from eventstore.codec import Codec, Event
from eventstore.sqlite import SQLiteLog
from eventstore.types import StreamName
from eventstore.writer import Writer
from tests.conformance.appends import append
from tests.conformance.stores import FakeClock

HOUR = 3600
JOB = StreamName("jobs/sweep")


class Node:
    """One node's share of one job, which does what the test says."""

    def __init__(self, town: Town, name: str) -> None:
        self.ran = 0
        self.hang: asyncio.Event | None = None
        self.fails: Exception | None = None
        self.nodes = Nodes(
            node=name,
            release="1",
            log=town.log,
            writer=town.writer,
            readers=town.readers,
            incarnation=f"{name}1",
        )
        self.job = FleetJob("sweep", Every(HOUR), self._work)
        self.fleet = Fleet(
            [self.job],
            streams=Repository(JOBS, log=town.log, writer=town.writer, readers=town.readers),
            nodes=self.nodes,
            log=town.log,
            readers=town.readers,
        )

    async def _work(self) -> str:
        self.ran += 1
        if self.hang is not None:
            await self.hang.wait()
        if self.fails is not None:
            raise self.fails
        return "swept"

    async def look(self) -> float:
        """Look once, and let what was started end if it can."""
        pause = await self.fleet.look_at(self.job)
        working = list(self.fleet._working.values())
        if self.hang is None:
            await asyncio.gather(*working)
        else:
            await asyncio.sleep(0)
        return pause


class Town:
    """Nodes on one log and one clock."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.log = SQLiteLog(folder / "log.db", clock=self.clock)
        self.writer = Writer(self.log)
        self.readers = ThreadPoolExecutor(2)

    def after(self, seconds: float) -> None:
        self.clock.move(round(seconds * SECOND))

    async def beat(self, *nodes: Node) -> None:
        for _ in range(2):
            for node in nodes:
                await node.nodes.beat()

    def in_order(self, *nodes: Node) -> list[Node]:
        return sorted(nodes, key=lambda node: node.nodes.rank(JOB))

    def events(self) -> list[Event]:
        codec = Codec(e.JOB_EVENTS)
        return [codec.decode(row.type, row.state) for row in self.log.read_stream(JOB)]

    def starts(self) -> list[tuple[str, int]]:
        return [(s.node, s.attempt) for s in self.events() if isinstance(s, e.JobStarted)]

    def close(self) -> None:
        self.writer.close()
        self.readers.shutdown()
        self.log.close()


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    town = Town(tmp_path)
    town.after(1)
    town.log.append_batch([append()])  # the log's first instant: nothing was due before it
    yield town
    town.close()


async def test_a_job_runs_when_it_is_due_and_not_before(town: Town) -> None:
    a = Node(town, "a")
    await town.beat(a)
    pause = await a.look()
    assert a.ran == 0
    assert 0 < pause <= HOUR
    town.after(pause)
    await town.beat(a)
    await a.look()
    await a.look()
    assert a.ran == 1
    assert [type(event) for event in town.events()] == [e.JobStarted, e.JobEnded]


async def test_of_two_nodes_the_first_in_the_order_runs_it_once(town: Town) -> None:
    a, b = Node(town, "a"), Node(town, "b")
    town.after(HOUR)
    await town.beat(a, b)
    first, second = town.in_order(a, b)
    assert await second.look() == GRACE / SECOND
    await first.look()
    town.after(GRACE / SECOND)
    await second.look()
    assert (first.ran, second.ran) == (1, 0)


async def test_the_second_runs_it_if_the_first_does_not(town: Town) -> None:
    a, b = Node(town, "a"), Node(town, "b")
    town.after(HOUR)
    await town.beat(a, b)
    first, second = town.in_order(a, b)
    await second.look()
    town.after(GRACE / SECOND)
    await second.look()
    await first.look()
    assert (first.ran, second.ran) == (0, 1)


async def test_after_a_long_outage_it_runs_once_not_for_every_slot(town: Town) -> None:
    a = Node(town, "a")
    town.after(HOUR)
    await town.beat(a)
    await a.look()
    town.after(1000 * HOUR)
    await town.beat(a)
    for _ in range(3):
        await a.look()
    assert a.ran == 2


async def test_what_a_dead_node_was_at_is_taken_over_and_the_dead_one_records_nothing(
    town: Town,
) -> None:
    a, b = Node(town, "a"), Node(town, "b")
    town.after(HOUR)
    await town.beat(a, b)
    first, second = town.in_order(a, b)
    first.hang = asyncio.Event()
    await first.look()
    town.after(9)
    await town.beat(second)
    await second.look()
    assert second.ran == 0, "its node lives"
    town.after(1.5)
    await town.beat(second)
    await second.look()
    assert second.ran == 1
    assert town.starts() == [(first.nodes.node, 1), (second.nodes.node, 2)]
    first.hang.set()
    await asyncio.gather(*first.fleet._working.values())
    assert [type(event) for event in town.events()].count(e.JobEnded) == 1


async def test_a_node_that_must_be_thought_dead_claims_nothing(town: Town) -> None:
    a = Node(town, "a")
    await town.beat(a)
    town.after(HOUR)
    await a.look()
    assert a.ran == 0


async def test_a_job_that_fails_says_so_and_runs_at_its_next_slot(town: Town) -> None:
    a = Node(town, "a")
    a.fails = LookupError("a person's name")
    town.after(HOUR)
    await town.beat(a)
    await a.look()
    await a.look()
    assert a.ran == 1
    assert town.events()[-1].code == "LookupError"  # type: ignore[attr-defined]
    town.after(HOUR)
    await town.beat(a)
    await a.look()
    assert a.ran == 2


async def test_somebody_may_ask_for_a_run_at_any_time(town: Town) -> None:
    a = Node(town, "a")
    await town.beat(a)
    town.after(1)
    streams = a.fleet._streams
    await streams.decide(JOB, lambda job: job.request("ana", now=town.log.now()))
    await a.look()
    await a.look()
    assert a.ran == 1
