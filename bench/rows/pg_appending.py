"""Durable appends of five-event turns to PostgreSQL: one process, and four at once."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Final, LiteralString

import psycopg
from msgspec.structs import replace

from bench.datasets import WORKING_SET, DataSet, thousands
from bench.measuring import Row, compare, interleaved
from bench.ours import OurLog
from bench.peers.eventsourcing_library import FEW_ROWS_A_COMMIT, on_postgres
from bench.peers.library_turns import Library
from bench.people import EVENTS_PER_TURN, working_set
from bench.plan import Plan
from bench.postgres import SCHEMA, databases, library_settings, moved
from bench.rows.appending import MANY, SHARE
from bench.writers import Writers
from eventstore.postgres import PostgresLog

if TYPE_CHECKING:
    from tests.postgres import Databases

THEIR_BEST: Final = 4
"""Threads with which the library gets most done on PostgreSQL: some 15 % more than one alone."""
PROCESSES: Final = 4
_ENDS: Final[LiteralString] = """
SELECT count(*), coalesce(min(position), 0), coalesce(max(position), 0),
       (SELECT position FROM {0}.head) FROM {0}.events
"""


def many_callers(plan: Plan) -> list[Row]:
    """64 callers of one process, against the library on the same server."""
    with databases() as server:
        return [_many_callers(plan, data, server) for data in plan.sets.both]


def _many_callers(plan: Plan, data: DataSet, server: Databases) -> Row:
    turns, theirs = plan.work(3200, least=MANY), plan.work(400, least=10)
    with ExitStack() as stack:
        log = PostgresLog(stack.enter_context(moved(server, data)), schema=SCHEMA)
        ours = stack.enter_context(OurLog(data, log=log))
        place = server.database()
        stack.callback(server.drop, place)
        library = on_postgres(library_settings(place))
        stack.enter_context(closing(library))
        peer = Library(library, plan, data, ours, rows_a_commit=FEW_ROWS_A_COMMIT)
        ours.warm_up()
        peer.take_turns(theirs, callers=THEIR_BEST)
        rounds = interleaved(
            lambda: ours.take_turns(turns, callers=MANY),
            lambda: peer.take_turns(theirs, callers=THEIR_BEST),
            SHARE * plan.rounds,
        )
    return compare(
        "pg-append-64",
        f"durable turns through the user aggregate to PostgreSQL, {MANY} callers",
        rounds,
        peer_name=f"eventsourcing on the same PostgreSQL, cache on, {THEIR_BEST} threads",
        target=5.0,
        unit="events/s",
        data_set=data.name,
        goal=25_000 if data.events else None,
    )


def many_processes(plan: Plan) -> list[Row]:
    """Four processes with 64 callers each, against one of them alone; then look at the log."""
    data = plan.sets.long
    turns = plan.work(6400, least=PROCESSES * MANY)
    people = working_set(data.people, 2 * WORKING_SET)
    shares = [people[1 + number :: 2 * PROCESSES] for number in range(0, 2 * PROCESSES, 2)]
    with databases() as server, moved(server, data) as url:
        with (
            Writers(url, data, shares, seed=100) as four,
            Writers(url, data, [people[::2]], seed=200) as one,
        ):
            rounds = interleaved(
                lambda: four.take_turns(turns, callers=MANY),
                lambda: one.take_turns(turns, callers=MANY),
                2 * plan.rounds,
            )
            appended = data.events + EVENTS_PER_TURN * (four.turns + one.turns)
        gaps = _gaps(url, appended)
    row = compare(
        "pg-append-4p",
        f"the same from {PROCESSES} processes with {MANY} callers each",
        rounds,
        peer_name="one such process",
        target=1.0,
        unit="events/s",
        data_set=data.name,
        notes=gaps or f"{thousands(appended)} positions, none skipped",
    )
    return [replace(row, ok=row.ok and not gaps)]


def _gaps(url: str, appended: int) -> str:
    """Say what a log of so many events lacks, or has too many; "": nothing."""
    with psycopg.connect(url) as connection:
        row = connection.execute(_ENDS.format(SCHEMA)).fetchone()
    expected = (appended, min(appended, 1), appended, appended)
    return "" if row == expected else f"count, first, last and head are {row}, not {expected}"
