"""Reading the past: one user's whole stream, and the thread map and the token totals of all."""

from __future__ import annotations

import asyncio
import gc
import itertools
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from app.aggregates.events import USER_EVENTS
from app.conversation.kinds import USERS
from app.conversation.repository import Repository
from app.projections import THREAD_MAP, TOKEN_TOTALS, Views, rebuild
from app.projections.model import ReadModel
from bench.datasets import append_history, thousands
from bench.measuring import Arm, Row, compare, interleaved
from bench.people import EVENTS_PER_TURN, Person, TurnMaker, open_keyring
from bench.plan import Plan
from eventstore.codec import Event, stored_name
from eventstore.sqlite import SQLiteLog
from eventstore.writer import Writer

PAGE: Final = 5000
LONG_STREAM: Final = 5000
_LOADS: Final = 12

DECODERS: Final[dict[str, Callable[[bytes], Event]]] = {
    stored_name(cls): msgspec.msgpack.Decoder(cls).decode for cls in USER_EVENTS
}
FIRST_TWO: Final = (THREAD_MAP, TOKEN_TOTALS)
ONE_STREAM: Final = """
SELECT e.version, e.type, e.recorded_at, e.state FROM events e
 WHERE e.stream_id = (SELECT id FROM streams WHERE name = ?) ORDER BY e.version
"""


def cold_load(plan: Plan) -> list[Row]:
    """Load a user with 5,000 events and no snapshot, as the first message after a restart does."""
    events = plan.work(LONG_STREAM, least=10)
    loads = plan.work(_LOADS)
    path = plan.sets.scratch("cold") / "log.db"
    keyring = open_keyring(plan.sets.empty.directory)
    person, maker = plan.sets.empty.people[0], TurnMaker(keyring, seed=19)
    turns = itertools.repeat(person)
    with closing(keyring), closing(SQLiteLog(path, server=True)) as log:
        steps = ((who, maker.exchange(who).record, EVENTS_PER_TURN) for who in turns)
        made = append_history(log, steps, events)
        with no_collection(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            ours, peer = _cold(log, person, loads, runner), _raw(path, person, loads)
            ours(), peer()
            rounds = interleaved(ours, peer, plan.rounds)
    return [
        compare(
            "cold-load",
            "cold load of one user, no snapshot",
            rounds,
            peer_name="raw read + decode of the same rows",
            target=3.0,
            better="lower",
            unit="ms",
            data_set=f"a stream of {thousands(made)} events",
        )
    ]


def _cold(log: SQLiteLog, person: Person, loads: int, runner: asyncio.Runner) -> Arm:
    async def load() -> float:
        writer, readers = Writer(log), ThreadPoolExecutor(1)
        try:
            spent = 0.0
            for _ in range(loads):
                users = Repository(USERS, log=log, writer=writer, readers=readers)
                start = time.perf_counter()
                await users.look(person.stream)
                spent += time.perf_counter() - start
            return spent / loads * 1000
        finally:
            writer.close()
            readers.shutdown()

    return lambda: runner.run(load())


def _raw(path: Path, person: Person, loads: int) -> Arm:
    def load() -> float:
        spent = 0.0
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version").fetchone()
            for _ in range(loads):
                start = time.perf_counter()
                rows = connection.execute(ONE_STREAM, (person.stream,)).fetchall()
                events = [DECODERS[kind](state) for _, kind, _, state in rows]
                spent += time.perf_counter() - start
                del rows, events
        return spent / loads * 1000

    return load


def rebuilt(plan: Plan, log: SQLiteLog, models: Sequence[ReadModel]) -> float:
    """Build read models from nothing; return how many events of the log they passed a second."""
    end = log.head().position
    with closing(Views(plan.sets.scratch("views") / "views.db")) as views:
        start = time.perf_counter()
        outcomes = rebuild(views, log, models)
        spent = time.perf_counter() - start
    assert all(outcome.position == end for outcome in outcomes)
    return end / spent


def rebuilding(plan: Plan) -> list[Row]:
    """Thread map and token totals from nothing, against reading and decoding what they want."""
    data = plan.sets.long
    types = tuple({stored_name(cls): None for model in FIRST_TWO for cls in model.events})
    scanned = _Scan(data.directory / "log.db", data.events, types)
    with no_collection(), closing(SQLiteLog(data.directory / "log.db")) as log:
        ours = partial(rebuilt, plan, log, FIRST_TWO)
        ours(), scanned()
        rounds = interleaved(ours, scanned, plan.rounds)
    return [
        compare(
            "rebuild",
            "rebuild of thread map and token totals, log events passed",
            rounds,
            peer_name="raw paged scan + decode of the rows they want",
            target=0.4,
            unit="events/s",
            data_set=data.name,
            goal=500_000,
            notes=f"they want {scanned.wanted} of {data.events} rows; SQL skips the others "
            "on both sides",
        )
    ]


class _Scan:
    """A raw paged scan with `sqlite3`, each row decoded into its own msgspec type."""

    def __init__(self, path: Path, events: int, types: tuple[str, ...]) -> None:
        self._path = path
        self._events = events
        self._types = types
        self.wanted = 0

    def __call__(self) -> float:
        marks = ",".join("?" * len(self._types))
        query = (
            "SELECT position, stream_id, type, recorded_at, state FROM events "  # noqa: S608
            f"WHERE position > ? AND type IN ({marks}) ORDER BY position LIMIT {PAGE}"
        )
        self.wanted, after = 0, 0
        start = time.perf_counter()
        with closing(sqlite3.connect(self._path)) as connection:
            while rows := connection.execute(query, (after, *self._types)).fetchall():
                events = [DECODERS[kind](state) for _, _, kind, _, state in rows]
                self.wanted += len(events)
                after = rows[-1][0]
        return self._events / (time.perf_counter() - start)


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the garbage collector out of both sides, as the worker process does."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
