"""Durable appends of five-event turns, and what they take on the disk."""

from __future__ import annotations

import itertools
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

from bench.datasets import DataSet, append_history, thousands
from bench.measuring import Row, collecting_as_served, compare, interleaved, limit
from bench.ours import OurLog
from bench.peers.by_hand import ByHand
from bench.peers.eventsourcing_library import on_sqlite
from bench.peers.library_turns import Library
from bench.people import EVENTS_PER_TURN, TurnMaker, open_keyring, working_set
from bench.plan import Plan
from eventstore.sqlite import SQLiteLog

MANY: Final = 64
SHARE: Final = 4
"""Short rounds, and more of them: one hiccup of the disk spoils one ratio, not the median."""


def many_callers(plan: Plan) -> list[Row]:
    """64 callers of one process, against the library that people would take."""
    return [_many_callers(plan, data) for data in plan.sets.both]


def _many_callers(plan: Plan, data: DataSet) -> Row:
    turns, theirs = plan.work(6400, least=MANY), plan.work(1000, least=10)
    with ExitStack() as stack:
        ours = stack.enter_context(OurLog(plan.sets.copy(data)))
        library = on_sqlite(plan.sets.scratch("library.db"))
        peer = stack.enter_context(closing(Library(library, plan, data, ours)))
        ours.warm_up()
        peer.take_turns(plan.work(1000, least=10))
        stack.enter_context(collecting_as_served())
        rounds = interleaved(
            lambda: ours.take_turns(turns, callers=MANY),
            lambda: peer.take_turns(theirs),
            SHARE * plan.rounds,
        )
    return compare(
        "append-64",
        f"durable turns through the user aggregate, {MANY} callers",
        rounds,
        peer_name="eventsourcing, cache on",
        target=5.0,
        unit="events/s",
        data_set=data.name,
        goal=45_000 if data.events else None,
    )


def one_caller(plan: Plan) -> list[Row]:
    """One caller that waits for every turn, against `sqlite3` by hand."""
    return [row for data in plan.sets.both for row in _one_caller(plan, data)]


def _one_caller(plan: Plan, data: DataSet) -> list[Row]:
    turns = plan.work(500, least=10)
    with ExitStack() as stack:
        ours = stack.enter_context(OurLog(plan.sets.copy(data)))
        peer = stack.enter_context(closing(ByHand(plan, data, ours)))
        ours.warm_up()
        peer.take_turns(turns)
        stack.enter_context(collecting_as_served())
        floors: list[float] = []
        mine: list[float] = []

        def both_floors() -> float:
            floors.append(peer.commit_rows(turns))
            return peer.take_turns(turns)

        def once() -> float:
            mine.append(ours.take_turns(turns, callers=1))
            return mine[-1]

        rounds = interleaved(once, both_floors, SHARE * plan.rounds)
    same = compare(
        "append-1",
        "the same, one caller",
        rounds,
        peer_name="raw sqlite3, one commit a turn",
        target=0.5,
        unit="events/s",
        data_set=data.name,
    )
    floor = compare(
        "append-1-floor",
        "the same",
        list(zip(mine, floors, strict=True)),
        peer_name="raw sqlite3, its rows sealed and encoded before the clock starts",
        target=None,
        unit="events/s",
        data_set=data.name,
    )
    return [same, floor]


def bytes_on_disk(plan: Plan) -> list[Row]:
    """The size of the log's file, indexes included, by the events in it."""
    events = plan.work(200_000, least=500)
    path = plan.sets.scratch("disk") / "log.db"
    keyring = open_keyring(plan.sets.empty.directory)
    people = working_set(plan.sets.empty.people, 1000)
    maker = TurnMaker(keyring, seed=17)
    turns = (
        (person, maker.exchange(person).record, EVENTS_PER_TURN)
        for person in itertools.cycle(people)
    )
    with closing(SQLiteLog(path, server=True)) as log:
        made = append_history(log, turns, events)
    keyring.close()
    return [
        limit(
            "disk",
            "bytes on disk per event of the bench turn",
            _size(path) / made,
            target=450,
            unit="bytes",
            data_set=f"{thousands(made)} events of {thousands(len(people))} users",
        )
    ]


def _size(path: Path) -> int:
    """The bytes of a database that is closed, its WAL (empty then) included."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
