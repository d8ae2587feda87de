"""Jobs that run once for all nodes: a slot is claimed by an append to the job's stream.

All nodes know the schedule and who comes first for a job. The first claims a slot when it is due;
the others look a little later, and claim it if nobody has. What a dead node was at is taken over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import Final

import msgspec
import structlog

from app.aggregates.jobs import (
    JOBS_PREFIX,
    Job,
    JobState,
    SlotClaim,
    SlotClaimed,
    SlotGivenUp,
    SlotLost,
)
from app.conversation.agenda import GRACE, STEP
from app.conversation.nodes import Nodes
from app.conversation.repository import Repository
from app.jobs.slots import Times, latest_slot, next_slot
from eventstore.errors import EventStoreError
from eventstore.store import LogReader
from eventstore.types import Micros, Position, StreamName

_log = structlog.get_logger(__name__)
_SECOND: Final = 1_000_000
LOOK_SECONDS: Final = 30.0
"""How often a job is looked at though nothing seems to be due."""

_AFTER_FAILURE: Final = 5.0
_RESULT: Final = 200


class FleetJob(msgspec.Struct, frozen=True):
    """A job, and when it is due. `work` returns what it did, in a few words."""

    name: str
    times: Times
    work: Callable[[], Awaitable[str]]

    @property
    def stream(self) -> StreamName:
        """Where its slots are claimed."""
        return StreamName(JOBS_PREFIX + self.name)


class Fleet:
    """Runs a node's share of the fleet's jobs. Belongs to one event loop."""

    def __init__(
        self,
        jobs: Sequence[FleetJob],
        *,
        streams: Repository[Job, JobState],
        nodes: Nodes,
        log: LogReader,
        readers: Executor,
    ) -> None:
        """Nothing runs before `run`."""
        self._readers = readers
        self.jobs = tuple(jobs)
        self._streams = streams
        self._nodes = nodes
        self._log = log
        self._born: Micros | None = None
        self._noticed: dict[tuple[str, int, str], Micros] = {}
        self._wake = asyncio.Event()
        self._working: dict[str, asyncio.Task[None]] = {}

    def wake(self) -> None:
        """Look at the jobs again: a node came or died, or somebody asked for a run."""
        self._wake.set()

    async def run(self) -> None:
        """Claim and run what is due until cancelled; what is at work then is cancelled, too."""
        try:
            while True:
                self._wake.clear()
                pause = await self._look()
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            for task in self._working.values():
                task.cancel()
            await asyncio.gather(*self._working.values(), return_exceptions=True)

    async def _look(self) -> float:
        """Start what is due; return the seconds until something will be."""
        pause = LOOK_SECONDS
        for job in self.jobs:
            if job.name in self._working:
                continue
            try:
                wait = await self.look_at(job)
            except EventStoreError as error:
                _log.warning("JOB_PUT_OFF", job=job.name, error=type(error).__name__)
                wait = _AFTER_FAILURE
            pause = min(pause, wait)
        return pause

    async def look_at(self, job: FleetJob) -> float:
        """Start a job if it is due and this node's to do; return the seconds until it may be."""
        if not self._nodes.may_work:
            return LOOK_SECONDS  # whoever makes us ready wakes us
        await self._streams.refresh(job.stream)
        state = (await self._streams.look(job.stream)).state
        now = self._log.now()
        slot, dead = self._due(job, state, now, await self._birth(now))
        if slot is None:
            return max(0.001, (next_slot(job.times, now) - now) / _SECOND)
        since = self._noticed.setdefault((job.name, slot, dead), now)
        rank = self._nodes.rank(job.stream)
        at = since + (0 if rank == 0 else GRACE + (rank - 1) * STEP)
        if at > now:
            return (at - now) / _SECOND
        self._noticed = {key: at for key, at in self._noticed.items() if key[0] != job.name}
        claim = await self.claim(job, slot, dead)
        if isinstance(claim, SlotClaimed):
            task = asyncio.ensure_future(self._work(job, claim.slot))
            self._working[job.name] = task
            task.add_done_callback(lambda _: self._ended(job.name))
        return LOOK_SECONDS

    def _due(
        self, job: FleetJob, state: JobState, now: Micros, born: Micros
    ) -> tuple[int | None, str]:
        """Return the slot that is due, and the incarnation that died at it, if one did."""
        running = state.running
        if running is not None:
            if self._nodes.is_mine(running.node, running.incarnation):
                return running.slot, running.incarnation  # cancelled, or its end was not recorded
            if self._nodes.is_alive(running.node, running.incarnation):
                return None, ""
        scheduled = latest_slot(job.times, now) or 0
        if scheduled < born:
            scheduled = 0
        slot = max(scheduled, state.requested)
        if running is not None:
            return max(slot, running.slot), running.incarnation
        return (slot if slot > state.slot else None), ""

    async def _birth(self, now: Micros) -> Micros:
        """Return the log's first instant: no job was due before it."""
        if self._born is None:
            loop = asyncio.get_running_loop()
            first = await loop.run_in_executor(self._readers, self._log.event_at, Position(1))
            if first is None:
                return now
            self._born = first.recorded_at
        return self._born

    async def claim(self, job: FleetJob, slot: int, dead: str) -> SlotClaim:
        """Claim a slot, or take it over from the dead."""
        nodes = self._nodes
        claim = await self._streams.decide(
            job.stream,
            lambda one: one.claim(
                slot,
                node=nodes.node,
                incarnation=nodes.incarnation,
                dead=dead,
                now=self._log.now(),
            ),
        )
        if isinstance(claim, SlotGivenUp):
            _log.error("JOB_GIVEN_UP", job=job.name, attempts=claim.attempts)
        return claim

    async def _work(self, job: FleetJob, slot: int) -> None:
        incarnation = self._nodes.incarnation
        try:
            result = (await job.work())[:_RESULT]
        except Exception as error:  # noqa: BLE001 - whatever it is, it is recorded
            _log.exception("JOB_FAILED", job=job.name)
            code = type(error).__name__
            ended = await self._streams.decide(
                job.stream, lambda one: one.fail(slot, incarnation, code, now=self._log.now())
            )
        else:
            _log.info("JOB_ENDED", job=job.name, result=result)
            ended = await self._streams.decide(
                job.stream, lambda one: one.end(slot, incarnation, result, now=self._log.now())
            )
        if isinstance(ended, SlotLost):
            _log.warning("JOB_TAKEN_OVER", job=job.name)

    def _ended(self, name: str) -> None:
        task = self._working.pop(name)
        if not task.cancelled() and task.exception() is not None:
            # Its end could not be recorded: it is this node's, and is looked at again.
            _log.error("JOB_NOT_RECORDED", job=name, exc_info=task.exception())
            asyncio.get_running_loop().call_later(_AFTER_FAILURE, self.wake)
            return
        self.wake()
