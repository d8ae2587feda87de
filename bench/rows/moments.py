"""Questions about the past: one user from their own stream, and the thread map from the log."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import closing
from itertools import islice
from typing import Final

from app.projections.user_at import user_at
from bench.datasets import thousands
from bench.measuring import Row, limit, percentile
from bench.plan import Plan
from eventstore.sqlite import SQLiteLog
from eventstore.types import Position

USERS: Final = 500


def one_user(plan: Plan) -> list[Row]:
    """One user's state as of a position in the middle of the log, each user once."""
    data = plan.sets.long
    spent: list[float] = []
    with closing(SQLiteLog(data.directory / "log.db")) as log:
        middle = Position(log.head().position // 2)
        streams = [found.name for found in islice(log.streams("user/"), plan.work(USERS, least=20))]
        for stream in streams:
            start = time.perf_counter()
            user_at(log, stream, middle)
            spent.append(time.perf_counter() - start)
    median = percentile(spent, 0.5) * 1000
    return [
        limit(
            "user-at",
            "one user's state as of a position, p99",
            percentile(spent, 0.99) * 1000,
            target=5.0,
            unit="ms",
            data_set=data.name,
            notes=f"p50 {median:.2f} ms; {thousands(len(spent))} users, none in memory",
        )
    ]


def thread_map(plan: Plan) -> list[Row]:
    """The whole thread map as of nine tenths of the log, in a worker that is started for it."""
    data = plan.sets.long
    spent: list[float] = []
    with closing(SQLiteLog(data.directory / "log.db")) as log:
        wanted = Position(log.head().position * 9 // 10)
        position = log.read(after=wanted, limit=1)[-1].position  # a read never splits an append
    for _ in range(plan.rounds):
        out = plan.sets.scratch("past") / "past.db"
        start = time.perf_counter()
        subprocess.run(
            [
                *(sys.executable, "-m", "app.worker", "past"),
                *("--data", str(data.directory.parent), "--bot", data.directory.name),
                *("--position", str(position), "--out", str(out), "--model", "thread_map"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        spent.append(time.perf_counter() - start)
    return [
        limit(
            "thread-map-at",
            "the whole thread map as of a position, cold, median",
            percentile(spent, 0.5),
            target=2.0,
            unit="s",
            data_set=data.name,
            notes="with the start of the worker process",
        )
    ]
