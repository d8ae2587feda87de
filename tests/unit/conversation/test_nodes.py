"""Who lives: all know, at the moment a beat expires; and a node that is not heard knows it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.conversation.nodes import SECOND, Nodes, NodeStatus, node_name, status_of
from eventstore.errors import LogUnavailable
from eventstore.sqlite import SQLiteLog
from eventstore.store import Beat, LogStore
from eventstore.types import Micros
from eventstore.writer import Writer
from tests.conformance.stores import FakeClock


class Town:
    """Some nodes on one log and one clock."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.log: LogStore = SQLiteLog(folder / "log.db", clock=self.clock)
        self.writer = Writer(self.log)
        self.readers = ThreadPoolExecutor(2)
        self.told: list[str] = []

    def node(self, name: str, incarnation: str, beat_seconds: float = 2.0) -> Nodes:
        nodes = Nodes(
            node=name,
            release="1.0",
            log=self.log,
            writer=self.writer,
            readers=self.readers,
            beat_seconds=beat_seconds,
            incarnation=incarnation,
        )
        nodes.listen(lambda: self.told.append(incarnation))
        return nodes

    def after(self, seconds: float) -> None:
        self.clock.move(round(seconds * SECOND))

    def close(self) -> None:
        self.writer.close()
        self.readers.shutdown()
        self.log.close()


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    town = Town(tmp_path)
    yield town
    town.close()


async def two(town: Town) -> tuple[Nodes, Nodes]:
    a, b = town.node("a", "a1"), town.node("b", "b1")
    await a.beat()
    await b.beat()
    await a.look()
    town.told.clear()
    return a, b


async def test_nodes_know_each_other_as_soon_as_they_look(town: Town) -> None:
    a, b = await two(town)
    assert a.is_alive("b", "b1")
    assert b.is_alive("a", "a1")
    assert (a.alive, b.alive) == (2, 2)
    assert not a.is_alive("b", "b0")
    assert not a.is_mine("b", "b1")


async def test_a_node_is_dead_ten_seconds_after_its_last_beat_and_not_before(town: Town) -> None:
    a, _ = await two(town)
    town.after(9.999)
    await a.beat()
    assert a.is_alive("b", "b1")
    assert town.told == []
    town.after(0.001)
    await a.look()
    assert not a.is_alive("b", "b1")
    assert town.told == ["a1"]
    await a.look()
    assert town.told == ["a1"], "it is told once"


async def test_a_restarted_node_s_predecessor_is_dead_at_once(town: Town) -> None:
    a, b = await two(town)
    again = town.node("b", "b2")
    await again.beat()
    assert not again.is_alive("b", "b1")
    await a.look()
    assert not a.is_alive("b", "b1")
    assert a.is_alive("b", "b2")
    assert b.may_work, "it learns with its next beat"


async def test_who_leaves_is_not_waited_for(town: Town) -> None:
    a, b = await two(town)
    town.log.forget_node("b", "b1")
    with capture_logs() as logs:
        await a.look()
    assert not a.is_alive("b", "b1")
    assert town.told == ["a1"]
    assert [line["event"] for line in logs] == ["NODE_LEFT"]
    assert b.may_work, "nobody tells it but itself"


async def test_of_two_under_one_name_the_later_start_stays(town: Town) -> None:
    a, b = await two(town)
    town.after(1)
    other = town.node("b", "b2")
    await other.beat()
    await b.beat()
    assert b.replaced_by == "b2"
    assert not b.may_work
    await other.beat()
    await a.look()
    assert other.may_work
    assert a.is_alive("b", "b2")
    assert not a.is_alive("b", "b1")


async def test_a_clock_that_was_set_back_does_not_keep_a_restarted_node_from_work(
    town: Town,
) -> None:
    await two(town)
    town.clock.move(-30 * SECOND)
    again = town.node("b", "b2")
    await again.beat()
    await again.beat()
    assert again.may_work


async def test_before_its_first_beat_a_node_takes_up_nothing(town: Town) -> None:
    a = town.node("a", "a1")
    assert not a.may_work
    await a.beat()
    assert a.may_work


async def test_a_node_that_was_silent_too_long_takes_up_nothing_until_it_beats_again(
    town: Town,
) -> None:
    a, b = await two(town)
    town.after(9.999)
    assert [b.may_work] == [True]
    town.after(0.001)
    assert [b.may_work] == [False]
    await b.look()
    assert [b.may_work] == [False], "looking is not beating"
    await b.beat()
    assert [b.may_work] == [True]
    assert "b1" in town.told
    await a.beat()


async def test_a_beat_that_could_not_be_written_is_none(town: Town) -> None:
    a, _ = await two(town)
    town.after(10)
    town.writer.close()
    with pytest.raises(LogUnavailable):
        await a.beat()
    assert not a.may_work


async def test_when_nobody_could_beat_nobody_is_taken_for_dead_by_the_first_who_can(
    town: Town,
) -> None:
    """The store was away for a minute: everybody's beat is old, and everybody lives."""
    a, b = await two(town)
    town.after(60)
    town.told.clear()
    await a.beat()
    assert a.is_alive("b", "b1")
    assert town.told == ["a1"], "it is told that it may work again"
    await b.beat()
    town.after(9)
    await a.beat()
    assert a.is_alive("b", "b1")
    town.after(1)
    await a.look()
    assert not a.is_alive("b", "b1"), "it has not beaten since"


async def test_a_death_is_noticed_when_the_beat_expires_not_with_the_next_own_beat(
    town: Town,
) -> None:
    a, _ = await two(town)
    town.after(9.95)
    await a.beat()  # its next beat is two seconds away, and the other's expires in 50 ms
    noticed = asyncio.Event()
    a.listen(noticed.set)
    beating = asyncio.ensure_future(a.keep_beating())
    await asyncio.sleep(0)
    town.after(0.05)
    async with asyncio.timeout(1.5):
        await noticed.wait()
    assert not a.is_alive("b", "b1")
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)


async def test_whose_beats_fail_says_so_until_one_goes_well(town: Town) -> None:
    a = town.node("a", "a1", beat_seconds=0.01)
    await a.beat()
    working, a._writer = a._writer, Writer(town.log)
    a._writer.close()
    beating = asyncio.ensure_future(a.keep_beating())
    async with asyncio.timeout(10):
        await fails(a, wanted=True)
        a._writer = working
        await fails(a, wanted=False)
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
    assert a.may_work


async def fails(nodes: Nodes, *, wanted: bool) -> None:
    """Return when the node's beats fail, or do not."""
    while nodes.failing is not wanted:  # noqa: ASYNC110 - beats tell nobody
        await asyncio.sleep(0)


async def test_every_name_has_one_first_node_and_few_move_when_one_dies(town: Town) -> None:
    a, b = await two(town)
    c = town.node("c", "c1")
    await c.beat()
    await a.look()
    await b.look()
    names = [f"user/{n}" for n in range(3000)]
    first = [[node.rank(name) for node in (a, b, c)] for name in names]
    assert all(sorted(ranks) == [0, 1, 2] for ranks in first)
    shares = [sum(ranks[i] == 0 for ranks in first) for i in range(3)]
    assert all(850 < share < 1150 for share in shares), shares
    town.after(9.5)
    await a.beat()
    await b.beat()
    town.after(0.5)
    await a.look()
    await b.look()
    for name, before in zip(names, first, strict=True):
        after = [a.rank(name), b.rank(name)]
        assert sorted(after) == [0, 1]
        if before[2] != 0:  # it was not the dead one's: it stays where it was
            assert after.index(0) == before.index(0)


async def test_what_a_node_says_of_itself_is_for_others_to_read(town: Town) -> None:
    a = town.node("a", "a1")
    a.status = lambda: NodeStatus(position=7, running=3)
    await a.beat()
    [row] = town.log.nodes()
    assert status_of(row) == NodeStatus(position=7, running=3)
    newer = Beat("n", "i", "9.0", Micros(1), status=b"\xc1")
    assert status_of(newer) == NodeStatus(), "of a later release, perhaps"


def test_two_directories_of_one_name_are_two_nodes() -> None:
    assert node_name("mine", Path("data")) == "mine"
    assert node_name("", Path("/srv/a/data")) != node_name("", Path("/srv/b/data"))
