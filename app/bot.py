"""One bot of this node, from its start to its end.

`open_bot` gives one running bot; `hilo serve` puts a door before it, tests and benchmarks use it
as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import structlog

from app.aggregates.gateway import GATEWAY_STREAM
from app.api.metrics import CLAIMS, FACTS
from app.bootstrap import Parts
from app.caches import Figures
from app.conversation.nodes import NodeStatus
from app.conversation.slots import Slots
from app.outside import Outside
from app.projections import MODELS
from app.projections.progress import Report
from app.settings import Settings
from eventstore.errors import EventStoreError

_log = structlog.get_logger(__name__)

DRAIN_SECONDS = 10.0
FLUSH_SECONDS = 5.0
"""Longest time for records of activity at shutdown: those left are due after the next start."""

PROFILE_SECONDS = 2.0
"""Longest time for profiles that are to be read: those left are read after the next start."""

LOOK_SECONDS = 0.1
"""How soon it is noticed at shutdown that the log does not answer."""

MICROS_PER_SECOND = 1_000_000


class Bot(Parts):
    """One bot of this node: its log, its people, its turns."""

    def __init__(self, settings: Settings, outside: Outside, slots: Slots | None = None) -> None:
        """Open the stores. Nothing runs before `start`. `slots`: those of the node, if shared."""
        super().__init__(settings, outside, slots)
        self._tasks: list[asyncio.Task[None]] = []
        self._hurry = asyncio.Event()

    async def start(self) -> None:
        """Say that this node lives, find what is open, and go to work."""
        await self.nodes.beat()
        self.nodes.status = self._status
        self.nodes.listen(self._nodes_changed)
        await self.gateway.look(GATEWAY_STREAM)
        await self.todo.start()
        await self.profiles.start()
        await asyncio.get_running_loop().run_in_executor(self.readers, self._look_at_views)
        self.follower.start()
        for work in (
            self.nodes.keep_beating(),
            self.todo.follow(),
            self.dispatcher.run(),
            self.fleet.run(),
        ):
            self._tasks.append(asyncio.ensure_future(work))
        self.schedule.start()

    def _look_at_views(self) -> None:
        """Note how far the read models are; give those of an empty log their tables.

        Nothing has to be built there: whoever reads at once finds nothing, and not that something
        is missing. Traffic does not depend on it.
        """
        try:
            standings = self.views.standings()
            head = self.log.head()
            if not standings and head.position == 0:
                self.views.begin(MODELS, head.epoch)
                standings = self.views.standings()
            self.follower.progress.note(Report(standings, head.position, 0.0, Figures(size=0)))
        except (sqlite3.Error, OSError, EventStoreError) as error:  # the follower will meet it, too
            kind = type(error).__name__
            _log.warning("BD_THREAD_ERROR", doing="look at the read models", error=kind)

    def _status(self) -> NodeStatus:
        return NodeStatus(
            position=self.todo.position,
            views=self.follower.progress.position,
            running=self.dispatcher.running,
            waiting=self.turns_waiting,
            skew=self.nodes.skew,
        )

    def _nodes_changed(self) -> None:
        """Somebody came or died, or this node itself returned: everything has another place."""
        self.recovery.look_soon()
        self.dispatcher.wake()
        self.fleet.wake()

    async def close(self) -> None:
        """Let running turns end, write what waits, and close everything."""
        self._closing = True
        self.schedule.stop()
        if self.thread_files is not None:
            await self.thread_files.close()
        await self._drain()
        await self._flush_activity()
        await self._unless_hurried(self.profiles.drain(), PROFILE_SECONDS)
        self.slots.leave()
        working = (*self._tasks, *self._looks)
        for task in working:
            task.cancel()
        await self.recovery.close()
        await self.profiles.close()
        await asyncio.gather(*working, return_exceptions=True)
        with contextlib.suppress(Exception):
            await self.todo.save()
        await self._unless_hurried(self.users.close())
        closing = self.outside.close()
        if asyncio.iscoroutine(closing):
            await closing
        await asyncio.to_thread(self._close_stores)  # other bots of this process may go on

    def _close_stores(self) -> None:
        """Write what waits, end the threads, and close every file and connection."""
        with ThreadPoolExecutor(1) as beside:  # either may be waited for until it is killed
            following = beside.submit(self.follower.stop)
            self.identities.close()
            self.writer.close()
        following.result()
        self._leave()
        self.readers.shutdown()
        self.checkpoint.close()
        self.asked.close()
        self.views.close()
        self.keyring.close()
        self.log.close()

    def _leave(self) -> None:
        """Say that this node is no more, now that it writes nothing: others need not wait for it.

        Not if it could not say anything for long: they know then.
        """
        if self.nodes.may_work:
            with contextlib.suppress(EventStoreError):
                self.log.forget_node(self.nodes.node, self.nodes.incarnation)

    def hurry(self) -> None:
        """Let `close` wait for running turns no longer: recovery goes on with them."""
        self._hurry.set()

    async def _drain(self) -> None:
        """Give running turns some time to end; none when there is no time."""
        await self._unless_hurried(self.dispatcher.drain(DRAIN_SECONDS))
        await self.dispatcher.drain(0)

    async def _unless_hurried(
        self, work: Coroutine[None, None, None], seconds: float | None = None
    ) -> None:
        """Wait for some work as long as there is time, and the log answers those who do it."""
        tasks = (
            asyncio.ensure_future(work),
            asyncio.ensure_future(self._hurry.wait()),
            asyncio.ensure_future(self._log_is_silent()),
        )
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _log_is_silent(self) -> None:
        while self.writer.busy_seconds < self.settings.webhook_seconds:  # noqa: ASYNC110 - no event
            await asyncio.sleep(LOOK_SECONDS)

    async def _flush_activity(self) -> None:
        """Record the activity of those whom this node comes first for, as far as there is time."""
        if self.nodes.may_work and not self._hurry.is_set():
            streams = [s for s in self.todo.unrecorded() if self.nodes.rank(s) == 0]
            await self._unless_hurried(self.activity.flush(streams), FLUSH_SECONDS)

    @property
    def turns_waiting(self) -> int:
        """People who are owed something that nothing here is at work on, activity records aside."""
        return max(0, len(self.todo) - self.dispatcher.running)

    @property
    def turns_left(self) -> int:
        """Of those, the people whom this node comes first for: others look after the rest."""
        working = self.dispatcher.is_running
        return sum(self.nodes.rank(s) == 0 and not working(s) for s in self.todo.streams())

    def numbers(self) -> dict[str, float]:
        """Return what `/metrics` shows; never waits."""
        facts, turns = self.receiver.counts, self.turns.counts
        return {
            "appends_waiting": self.writer.waiting,
            "log_writer_restarts": self.writer.restarts,
            "turns_waiting": self.turns_waiting,
            "turns_running": self.dispatcher.running,
            "open_streams": len(self.todo),
            "activities_waiting": self.todo.records,
            "activities_recorded": self.activity.recorded,
            "nodes_alive": self.nodes.alive,
            "node_may_work": self.nodes.may_work,
            "clock_skew_seconds": self.nodes.skew / MICROS_PER_SECOND,
            **{name: float(turns[name]) for name in {*CLAIMS, *turns}},
            "profiles_waiting": len(self.profiles),
            "profiles_failed": self.profiles.failed,
            "keys_failing": self.identities.failing,
            "keys_failures": self.identities.failures,
            "identity_clashes": self.keyring.clashes,
            "read_models_restarts": self.follower.restarts,
            **self.follower.progress.numbers(),
            **({} if self.thread_files is None else self.thread_files.numbers()),
            **{f"facts_{name}": float(facts[name]) for name in {*FACTS, *facts}},
            **dict(self.caches.numbers()),
        }


@asynccontextmanager
async def open_bot(
    settings: Settings, outside: Outside, slots: Slots | None = None
) -> AsyncIterator[Bot]:
    """Run one bot for as long as the context lasts."""
    bot = Bot(settings, outside, slots)
    try:
        await bot.start()
        yield bot
    finally:
        await bot.close()
