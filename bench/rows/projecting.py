"""The read models, all of them: from nothing, and behind live traffic."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from functools import partial
from queue import SimpleQueue
from typing import Final

from app.projections import MODELS, FollowerProcess, Views, rebuild
from app.projections.following import arguments
from bench.datasets import thousands
from bench.measuring import Row, compare, interleaved, limit, meets, percentile
from bench.ours import OurLog
from bench.peers.eventsourcing_runner import Runner
from bench.people import EVENTS_PER_TURN
from bench.plan import Plan
from bench.postgres import databases, library_settings
from bench.rows.reading import no_collection, rebuilt
from eventstore.sqlite import SQLiteLog
from eventstore.types import Position

LEAST: Final = 100_000.0
PEER_EVENTS: Final = 50_000
TRAFFIC: Final = 2_000
"""Events a second of the live row."""
_TICK: Final = 0.01
_SECONDS: Final = 10.0
_ENOUGH: Final = 30.0


def rebuilding_all(plan: Plan) -> list[Row]:
    """All read models from nothing, against the library's runner with a view in memory."""
    data = plan.sets.long
    peer_events = min(PEER_EVENTS, data.events)
    with databases() as server:
        settings = library_settings(server.database())
        runner = Runner(settings, peer_events, plan.sets.scratch("peer") / "default")
        with no_collection(), closing(SQLiteLog(data.directory / "log.db")) as log:
            ours = partial(rebuilt, plan, log, MODELS)
            rounds = interleaved(ours, runner.run, plan.rounds)
    ratio = compare(
        "rebuild-all",
        f"rebuild of all {len(MODELS)} read models",
        rounds,
        peer_name="eventsourcing's ProjectionRunner, its log in PostgreSQL, one view in memory",
        target=4.0,
        unit="events/s",
        data_set=data.name,
        notes=f"the peer's log has {thousands(runner.events)} events: its rate is steady",
    )
    assert ratio.ours is not None
    rate = Row(
        name="rebuild-rate",
        what=f"rebuild of all {len(MODELS)} read models, log events passed",
        ours=ratio.ours,
        target=LEAST,
        unit="events/s",
        data_set=data.name,
        ok=meets(ratio.ours, LEAST, "higher"),
    )
    return [ratio, rate]


def live_lag(plan: Plan) -> list[Row]:
    """All read models behind traffic of 2,000 events a second, followed as `hilo serve` does."""
    data = plan.sets.copy(plan.sets.long)
    views = Views(data.directory / "views.db")
    lags: list[float] = []
    with OurLog(data) as ours, closing(views):
        rebuild(views, ours.log, MODELS)
        where = arguments(data.data, data.directory.name, data.data / "logs")
        follower = FollowerProcess(views, MODELS, where)
        follower.start()
        try:
            ours.warm_up()
            assert follower.progress.wait_for(ours.log.head().position, _ENOUGH)
            lags = _measured(ours, follower, plan.seconds(_SECONDS))
        finally:
            follower.stop()
    median = percentile(lags, 0.5) * 1000
    return [
        limit(
            "live-lag",
            f"commit to visible in all {len(MODELS)} read models, p99",
            percentile(lags, 0.99) * 1000,
            target=100.0,
            unit="ms",
            data_set=f"{data.name}, {thousands(TRAFFIC)} events/s",
            notes=f"from before the commit; p50 {median:.0f} ms; {thousands(len(lags))} commits",
        )
    ]


def _measured(ours: OurLog, follower: FollowerProcess, seconds: float) -> list[float]:
    """Write for so long, at a steady rate; return how long each tick's events took to be seen."""
    written: SimpleQueue[tuple[Position, float] | None] = SimpleQueue()
    lags: list[float] = []

    def watch() -> None:
        while (entry := written.get()) is not None:
            position, since = entry
            assert follower.progress.wait_for(position, _ENOUGH)
            lags.append(time.perf_counter() - since)

    watcher = threading.Thread(target=watch)
    watcher.start()
    turns = max(1, round(TRAFFIC * _TICK / EVENTS_PER_TURN))
    began = time.perf_counter()
    for tick in range(round(seconds / _TICK)):
        time.sleep(max(0.0, began + tick * _TICK - time.perf_counter()))
        since = time.perf_counter()
        ours.take_turns(turns, callers=turns)
        written.put((ours.log.head().position, since))
    written.put(None)
    watcher.join()
    return lags
