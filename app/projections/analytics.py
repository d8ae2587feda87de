"""Figures over time: usage and cost, latency, thread changes, media, the gateways' health (G5).

Every answer names the log position that it reflects. A bot's figures are its own: its `views.db`
holds nobody else's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
from msgspec import Meta

from app.projections import prices as p
from app.projections.asking import Span, asking
from app.projections.gateway_health import GATEWAY_HEALTH
from app.projections.media import MEDIA, MEDIA_KINDS
from app.projections.tally import TallyModel
from app.projections.thread_changes import THREAD_CHANGES
from app.projections.turn_latency import PARTS
from app.projections.views import Views
from eventstore.types import Position

ALL_DAYS: Final = Span()
PERCENTILES: Final = (50, 90, 95, 99)


R = TypeVar("R")


class Report(msgspec.Struct, Generic[R], frozen=True):
    """Rows, oldest first, as of a position of the log."""

    position: Position
    rows: list[R]


class UsageRow(msgspec.Struct, frozen=True):
    """What was used of one model in one period."""

    period: str
    model: str
    """As OpenAI names it; empty where it named none."""
    runs: int
    total: Annotated[int, Meta(description="tokens, as OpenAI reported them")]
    input: Annotated[int, Meta(description="tokens")]
    output: Annotated[int, Meta(description="tokens")]
    cached: Annotated[int, Meta(description="tokens: the part of `input` that was cached")]
    reasoning: Annotated[int, Meta(description="tokens: the part of `output` that nobody reads")]
    cost: Annotated[Decimal, Meta(description="USD, of the runs that can be priced")]
    unpriced_runs: int
    """Runs whose cost is unknown: no price for the model that day, or tokens not told apart."""
    unknown_runs: int
    """Runs that may have been billed and whose usage nobody could say; not among `runs`."""


class UsageReport(Report[UsageRow], frozen=True):
    """Usage and cost of one bot."""

    runs: int
    total: Annotated[int, Meta(description="tokens")]
    cost: Annotated[Decimal, Meta(description="USD, of the runs that can be priced")]
    unpriced_runs: int
    unknown_runs: int


def usage(views: Views, span: Span = ALL_DAYS, prices: p.Prices | None = None) -> UsageReport:
    """Return tokens and cost per period and model, oldest first."""
    query = f"SELECT {span.period}, * FROM usage_hours WHERE {span.where} ORDER BY hour, model"  # noqa: S608 - our own words
    known = prices or p.standard()
    rows: dict[tuple[str, str], list[int]] = {}
    with asking(views, "usage") as (db, position):
        for period, hour, model, *numbers in db.execute(query, span.bounds):
            row = rows.setdefault((period, model), [0] * 9)
            _add(row, _priced(hour, model, numbers, known))
    found = [
        UsageRow(
            period=period,
            model=model,
            runs=row[0],
            total=row[1],
            input=row[2],
            output=row[3],
            cached=row[4],
            reasoning=row[5],
            cost=p.usd(row[6]),
            unpriced_runs=row[7],
            unknown_runs=row[8],
        )
        for (period, model), row in sorted(rows.items())
    ]
    cost = p.usd(sum(row[6] for row in rows.values()))
    unpriced, unknown = (sum(row[i] for row in rows.values()) for i in (7, 8))
    runs, total = sum(row.runs for row in found), sum(row.total for row in found)
    return UsageReport(position, found, runs, total, cost, unpriced, unknown)


def _priced(hour: str, model: str, numbers: Sequence[int], prices: p.Prices) -> list[int]:
    runs, total, read, written, cached, reasoning, undivided, _, unknown = numbers
    price = prices.of(model, p.day_of(hour))
    cost, unpriced = 0, runs
    if price is not None:
        cost, unpriced = price.cost(input=read, output=written, cached=cached), undivided
    return [runs, total, read, written, cached, reasoning, cost, unpriced, unknown]


def _add(row: list[int], numbers: Sequence[int]) -> None:
    for place, number in enumerate(numbers):
        row[place] += number


Took = Annotated[int, Meta(description="µs")]


class PartLatency(msgspec.Struct, frozen=True):
    """How long one part of a turn took: exact percentiles by nearest rank, in µs."""

    part: str
    """One of `turn_latency.PARTS`, or `total`, or `reply`."""
    turns: int
    """Those that came so far."""
    p50: Took
    p90: Took
    p95: Took
    p99: Took
    longest: Took


class LatencyReport(msgspec.Struct, frozen=True):
    """How long people waited, and for what."""

    position: Position
    turns: int
    outcomes: dict[str, int]
    runs: int
    parts: list[PartLatency]


def latency(views: Views, span: Span = ALL_DAYS) -> LatencyReport:
    """Return the latency of the turns that ended in the span, all together, part by part."""
    where = f"FROM turns WHERE {span.where}"
    outcomes = f"SELECT outcome, count(*), sum(runs) {where} GROUP BY 1 ORDER BY 1"
    with asking(views, "turn_latency") as (db, position):
        found = db.execute(outcomes, span.bounds).fetchall()
        parts = [_part(db, name, where, span) for name in (*PARTS, "total", "reply")]
    return LatencyReport(
        position=position,
        turns=sum(count for _, count, _ in found),
        outcomes={outcome: count for outcome, count, _ in found},
        runs=sum(runs for *_, runs in found),
        parts=[part for part in parts if part is not None],
    )


def _part(db: sqlite3.Connection, name: str, where: str, span: Span) -> PartLatency | None:
    some = f"{where} AND {name} IS NOT NULL"
    count: int = db.execute(f"SELECT count(*) {some}", span.bounds).fetchone()[0]
    if not count:
        return None
    ranks = [-(-count * percent // 100) for percent in PERCENTILES] + [count]
    query = (
        f"SELECT rank, took FROM (SELECT {name} AS took, row_number() OVER (ORDER BY {name})"  # noqa: S608
        f" AS rank {some}) WHERE rank IN (SELECT value FROM json_each(:ranks))"
    )
    values = {"ranks": msgspec.json.encode(ranks).decode(), **span.bounds}
    took = dict(db.execute(query, values).fetchall())
    return PartLatency(name, count, *(took[rank] for rank in ranks))


class ThreadChange(msgspec.Struct, frozen=True):
    """Conversations begun and left for one reason in one period."""

    period: str
    reason: str
    started: int
    resets: int
    left_behind: Annotated[int, Meta(description="tokens")]
    most_left_behind: Annotated[int, Meta(description="tokens, in one reset")]


class ThreadChangeReport(Report[ThreadChange], frozen=True):
    """Why conversations change, and what that leaves behind."""


def thread_changes(views: Views, span: Span = ALL_DAYS) -> ThreadChangeReport:
    """Return changes per period and reason, oldest first."""
    figures = "sum(started), sum(resets), sum(left_behind), max(most_left_behind)"
    position, found = _added_up(views, span, THREAD_CHANGES, figures)
    return ThreadChangeReport(position, [ThreadChange(*row) for row in found])


class MediaRow(msgspec.Struct, frozen=True):
    """What came in of one kind in one period."""

    period: str
    kind: str
    has_file: bool
    messages: int
    answerable: int


class MediaReport(Report[MediaRow], frozen=True):
    """What people send, counted by kind.

    There is no size, processing time or hit rate: no event tells them yet, since files are neither
    fetched nor converted. A figure that nobody has measured is left out, not shown as 0.
    """


def media(views: Views, span: Span = ALL_DAYS) -> MediaReport:
    """Return messages per period and kind, oldest first."""
    figures = "sum(messages), sum(answerable)"
    position, found = _added_up(views, span, MEDIA, figures)
    rows = [MediaRow(period, kind, kind in MEDIA_KINDS, *counts) for period, kind, *counts in found]
    return MediaReport(position, rows)


class HealthRow(msgspec.Struct, frozen=True):
    """How often one thing happened in one period."""

    period: str
    what: str
    detail: str
    events: int
    mean_late: Annotated[
        int | None,
        Meta(
            description="µs between the sender's own time of a message and its commit here, on "
            "average; null where no sender gave a time"
        ),
    ]
    latest: Annotated[int | None, Meta(description="µs: the longest of these")]


class HealthReport(Report[HealthRow], frozen=True):
    """How the gateways, their webhooks and the provider behaved."""


def gateway_health(views: Views, span: Span = ALL_DAYS) -> HealthReport:
    """Return what happened per period, oldest first."""
    figures = (
        "sum(events), sum(late) / nullif(sum(timed), 0), CASE WHEN sum(timed) THEN max(latest) END"
    )
    position, found = _added_up(views, span, GATEWAY_HEALTH, figures)
    return HealthReport(position, [HealthRow(*row) for row in found])


def _added_up(
    views: Views, span: Span, model: TallyModel, figures: str
) -> tuple[Position, list[tuple[Any, ...]]]:
    """Return the figures of a model's rows per period and the model's names, in that order."""
    keys = ", ".join((span.period, *model.names))
    query = (
        f"SELECT {keys}, {figures} FROM {model.table} WHERE {span.where}"  # noqa: S608 - our own words
        f" GROUP BY {keys} ORDER BY {keys}"
    )
    with asking(views, model.name) as (db, position):
        return position, db.execute(query, span.bounds).fetchall()
