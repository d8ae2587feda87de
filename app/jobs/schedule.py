"""When jobs run: APScheduler on the event loop, each job alone, never piling up.

A job that is still at work when it falls due again is skipped; one that fails is logged by its
category and runs again at its next time. Nothing a job does may stop traffic.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

_log = structlog.get_logger(__name__)

Job = Callable[[], Awaitable[None]]


class Schedule:
    """The jobs of one node. Belongs to the running event loop."""

    def __init__(self) -> None:
        """Nothing runs before `start`."""
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None},
        )
        self.runs: dict[str, int] = {}
        """How often each job has ended well."""
        self.failures: dict[str, int] = {}
        """How often each job has failed."""

    def every(self, seconds: float, name: str, job: Job, *, first: float | None = None) -> None:
        """Run `job` every so many seconds, the first time after `first` (default: the same)."""
        begin = datetime.now(UTC) + timedelta(seconds=seconds if first is None else first)
        self.runs[name] = self.failures[name] = 0
        self._scheduler.add_job(
            self._run,
            IntervalTrigger(seconds=seconds, timezone=UTC),  # type: ignore[arg-type, unused-ignore]
            args=(name, job),
            id=name,
            next_run_time=begin,
        )

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()

    def stop(self) -> None:
        """Start nothing any more; what runs is cancelled with its loop."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    async def _run(self, name: str, job: Job) -> None:
        try:
            await job()
        except Exception:  # noqa: BLE001 - the next run, and every other job, goes on
            self.failures[name] += 1
            _log.exception("JOB_FAILED", job=name)
        else:
            self.runs[name] += 1
