"""Moving house: a bot's log and keys to PostgreSQL and back, every leaf compared."""

from __future__ import annotations

import shutil
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.moving import Place, move_house
from app.settings import load
from bench.datasets import BOT
from bench.measuring import Row, meets
from bench.plan import Plan
from bench.postgres import databases

if TYPE_CHECKING:
    from tests.postgres import Databases

TARGET: Final = 60_000.0


def both_ways(plan: Plan) -> list[Row]:
    """Copy the long log to PostgreSQL and from there to a new directory; compare every leaf."""
    there: list[float] = []
    back: list[float] = []
    with databases() as server:
        for _ in range(plan.rounds):
            one, other = _round(plan, server)
            there.append(one)
            back.append(other)
    return [
        _row(plan, "migrate", "a log moved to PostgreSQL, verified", there),
        _row(plan, "migrate-back", "a log moved back to SQLite, verified", back),
    ]


def _round(plan: Plan, server: Databases) -> tuple[float, float]:
    """Return events a second, there and back."""
    settings = load(data=plan.sets.long.data, bot=BOT)
    log_url, keys_url = server.database(), server.database()
    returned: Path = plan.sets.scratch("returned")
    postgres = Place(log_url, keys_url, settings)
    there = _moved(Place(f"sqlite:{plan.sets.long.data}", None, settings), postgres)
    back = _moved(postgres, Place(f"sqlite:{returned}", None, settings))
    server.drop(log_url)
    server.drop(keys_url)
    shutil.rmtree(returned)
    return there, back


def _moved(origin: Place, goal: Place) -> float:
    start = time.perf_counter()
    moved, _ = move_house(origin, goal, lambda _what, _done, _total: None, record=lambda: None)
    return moved.head.position / (time.perf_counter() - start)


def _row(plan: Plan, name: str, what: str, rates: list[float]) -> Row:
    rate = statistics.median(rates)
    return Row(
        name=name,
        what=what,
        ours=rate,
        target=TARGET,
        better="higher",
        unit="events/s",
        data_set=f"{plan.sets.long.name}, with their keys",
        ok=meets(rate, TARGET, "higher"),
    )
