"""Read models from a log in PostgreSQL, against reading and decoding the same rows by hand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Final

import psycopg

from app.projections import MODELS, Views, rebuild
from app.projections.model import ReadModel
from bench.measuring import Arm, Row, compare, interleaved
from bench.plan import Plan
from bench.postgres import SCHEMA, databases, moved
from bench.rows.reading import DECODERS, FIRST_TWO, PAGE, no_collection
from eventstore.codec import stored_name
from eventstore.postgres import PostgresLog

TARGET: Final = 0.4
_PAGE_OF_TYPES: Final = """
SELECT position, stream_id, type, recorded_at, state FROM events
 WHERE position > %s AND type = ANY (%s) ORDER BY position LIMIT %s
"""


def rebuilding(plan: Plan) -> list[Row]:
    """The first two read models, and all of them, from nothing."""
    data = plan.sets.long
    with databases() as server, moved(server, data) as url:
        return [
            _rebuilding(plan, url, "pg-rebuild", "thread map and token totals", FIRST_TWO, TARGET),
            _rebuilding(plan, url, "pg-rebuild-all", f"all {len(MODELS)} models", MODELS, None),
        ]


def _rebuilding(  # noqa: PLR0913, PLR0917 - what is rebuilt where, and its line of the table
    plan: Plan,
    url: str,
    name: str,
    what: str,
    models: Sequence[ReadModel],
    target: float | None,
) -> Row:
    data = plan.sets.long
    types = list({stored_name(cls): None for model in models for cls in model.events})
    scanned = _Scan(url, data.events, types)
    with no_collection(), closing(PostgresLog(url, schema=SCHEMA)) as log:
        ours = _rebuild(plan, log, models)
        ours(), scanned()
        rounds = interleaved(ours, scanned, plan.rounds)
    return compare(
        name,
        f"{what} rebuilt from PostgreSQL, log events passed",
        rounds,
        peer_name="raw paged scan with psycopg + decode of the rows they want",
        target=target,
        unit="events/s",
        data_set=data.name,
        notes=f"they want {scanned.wanted} of {data.events} rows; SQL skips the others "
        "on both sides",
    )


def _rebuild(plan: Plan, log: PostgresLog, models: Sequence[ReadModel]) -> Arm:
    events = plan.sets.long.events

    def ours() -> float:
        with closing(Views(plan.sets.scratch("views") / "views.db")) as views:
            start = time.perf_counter()
            outcomes = rebuild(views, log, models)
            spent = time.perf_counter() - start
        assert all(outcome.position == events for outcome in outcomes)
        return events / spent

    return ours


class _Scan:
    """A raw paged scan with `psycopg`, binary, each row decoded into its own type.

    Planned for each page, which is faster: the server hashes types that it knows.
    """

    def __init__(self, url: str, events: int, types: list[str]) -> None:
        self._url = url
        self._events = events
        self._types = types
        self.wanted = 0

    def __call__(self) -> float:
        self.wanted, after = 0, 0
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(f"SET search_path TO {SCHEMA}")
            start = time.perf_counter()
            while rows := connection.execute(
                _PAGE_OF_TYPES, (after, self._types, PAGE), prepare=False, binary=True
            ).fetchall():
                events = [DECODERS[kind](state) for _, _, kind, _, state in rows]
                self.wanted += len(events)
                after = rows[-1][0]
            return self._events / (time.perf_counter() - start)
