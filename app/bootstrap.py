"""The composition root: where real parts are made and wired together, and nowhere else.

`open_bot` gives one running bot; `hilo serve` puts a door before it, tests and benchmarks use it
as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import structlog

from app.aggregates.gateway import GATEWAY_STREAM, Gateway, GatewayState
from app.aggregates.jobs import JOBS_PREFIX
from app.aggregates.user import User
from app.aggregates.user_state import UserState
from app.caches import Expiring, Figures, Registry
from app.conversation.activity import Activity
from app.conversation.agenda import Open, open_work
from app.conversation.client_cache import ClientCache, Kept
from app.conversation.crash import CrashPoints
from app.conversation.delivering import Delivering
from app.conversation.dispatcher import Dispatcher
from app.conversation.kinds import GATEWAYS, JOBS, USERS
from app.conversation.nodes import Nodes, NodeStatus, node_name
from app.conversation.policy import TurnPolicy
from app.conversation.ports import Messenger, ModelProvider
from app.conversation.profiles import Profiles
from app.conversation.receiving import BOT, Identities, Receiver
from app.conversation.recovery import Recovery
from app.conversation.repository import HOUR_SECONDS, Repository
from app.conversation.slots import Slots
from app.conversation.todo import TodoCheckpoint, TodoList
from app.conversation.turn import Turns
from app.gateways.openai import OpenAIProvider, OpenAISettings
from app.gateways.whapi import WhapiMessenger, WhapiSettings
from app.jobs.bot_keys import bot_keys
from app.jobs.calendar import BOT_KEYS, NODE_ROWS, calendar
from app.jobs.fleet import Fleet, FleetJob
from app.jobs.node_rows import node_rows
from app.jobs.schedule import Schedule
from app.news import News
from app.projections import MODELS, Follower, Views
from app.release import release
from app.settings import Settings
from app.skips import ControlLedger
from app.stores import open_keyring, open_log, refuse_to_lose_keys
from eventstore.recent import Recent
from eventstore.sealing import Sealer
from eventstore.types import Position, StreamName
from eventstore.writer import Writer

_log = structlog.get_logger(__name__)
RELEASE = release()
READERS = 4
DRAIN_SECONDS = 10.0
FLUSH_SECONDS = 5.0
"""Longest time for records of activity at shutdown: those left are due after the next start."""

CHECKPOINT_SECONDS = 2.0
MICROS_PER_SECOND = 1_000_000


class Outside(msgspec.Struct, frozen=True):
    """The world of one bot: who answers, and who carries the messages."""

    provider: ModelProvider
    messenger: Messenger
    close: Callable[[], object]


class Bot:
    """One bot of this node: its log, its people, its turns."""

    def __init__(self, settings: Settings, outside: Outside, slots: Slots | None = None) -> None:
        """Open the stores. Nothing runs before `start`. `slots`: those of the node, if shared."""
        self.settings = settings
        self.slots = (slots or Slots(settings.runs_at_once)).share(most=settings.runs_at_once)
        self.log = open_log(settings, server=True)
        self.position = self.log.head().position
        """Where the log ends, as far as this process has written it or begun with it."""
        try:
            refuse_to_lose_keys(settings, self.log)
            self.keyring = open_keyring(settings)
        except BaseException:
            self.log.close()
            raise
        self.writer = Writer(self.log, capacity=settings.queue)
        self.keyring.ensure_keys([BOT])
        self.sealer = Sealer(self.keyring)
        self.readers = ThreadPoolExecutor(READERS, thread_name_prefix="hilo-reader")
        self.crash = CrashPoints(settings.crash_at)
        self.outside = outside
        self.policy = TurnPolicy.of(settings)
        self.news = News()
        self._tasks: list[asyncio.Task[None]] = []
        self._looks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._hurry = asyncio.Event()
        self.caches = Registry()
        self._keep_aggregates()
        self._take_in()
        self._take_turns()
        self._look_after_them()
        self._follow()

    def _keep_aggregates(self) -> None:
        self.users: Repository[User, UserState] = Repository(
            USERS,
            log=self.log,
            writer=self.writer,
            readers=self.readers,
            capacity=self.settings.user_cache,
        )
        self.gateway: Repository[Gateway, GatewayState] = Repository(
            GATEWAYS, log=self.log, writer=self.writer, readers=self.readers
        )

    def _take_in(self) -> None:
        """Wire what a webhook goes through."""
        self.identities = Identities(self.keyring)
        self.receiver = Receiver(
            users=self.users,
            gateway=self.gateway,
            identities=self.identities,
            keyring=self.keyring,
            sealer=self.sealer,
            log=self.log,
            readers=self.readers,
            crash=self.crash,
            channel=self.settings.channel,
        )

    def _take_turns(self) -> None:
        """Wire what runs a turn and delivers its reply, and the lease that it does so under."""
        settings = self.settings
        self.nodes = Nodes(
            node=node_name(settings.node, settings.data),
            release=RELEASE,
            log=self.log,
            writer=self.writer,
            readers=self.readers,
            beat_seconds=settings.beat_seconds,
            dead_seconds=settings.dead_seconds,
        )
        self.delivering = Delivering(
            users=self.users,
            messenger=self.outside.messenger,
            log=self.log,
            readers=self.readers,
            sealer=self.sealer,
            fingerprint=self.keyring.fingerprint,
            policy=self.policy,
            nodes=self.nodes,
            crash=self.crash,
            jitter=random.random,
        )
        self.activity = Activity(
            users=self.users, now=self.log.now, delay=self.policy.activity, crash=self.crash
        )
        self.turns = Turns(
            users=self.users,
            provider=self.outside.provider,
            delivering=self.delivering,
            activity=self.activity,
            log=self.log,
            readers=self.readers,
            sealer=self.sealer,
            nodes=self.nodes,
            policy=self.policy,
            crash=self.crash,
            jitter=random.random,
        )

    def _look_after_them(self) -> None:
        """Wire what knows when a turn is due, and finds those that were left behind."""
        self.dispatcher = Dispatcher(
            self.turns.work,
            now=self.log.now,
            slots=self.slots,
            after=self._look_again,
            ready=lambda: self.nodes.may_work,
        )
        self.checkpoint = TodoCheckpoint.owned(self.settings.bot_directory / "todo.db")
        self.todo = TodoList(
            users=self.users,
            log=self.log,
            readers=self.readers,
            checkpoint=self.checkpoint,
            tell=self._tell,
            others=self._other_stream,
        )
        self.users.on_commit = self.todo.committed
        self.recovery = Recovery(
            todo=self.todo,
            users=self.users,
            nodes=self.nodes,
            dispatcher=self.dispatcher,
            now=self.log.now,
        )
        self.schedule = self._jobs()
        self.fleet = self._fleet_jobs()

    def _follow(self) -> None:
        """Wire the read models to the log, and what is kept in memory of clients to both."""
        self.views = Views.owned(self.settings.bot_directory / "views.db")
        ledger = ControlLedger(self.settings, self.settings.bot)
        self.follower = Follower(self.log, self.views, MODELS, ledger=ledger, worker=True)
        self.writer.listen(self._committed)
        kept: Expiring[StreamName, Kept] = Expiring(
            limit=self.settings.client_cache, ttl=self.settings.client_cache_hours * 3600
        )
        self.clients = ClientCache(kept, views=self.views, users=self.users, readers=self.readers)
        self.profiles = Profiles(
            users=self.users,
            messenger=self.outside.messenger,
            clients=self.clients,
            sealer=self.sealer,
            readers=self.readers,
            now=self.log.now,
            jitter=random.random,
        )
        self.caches.add("clients", kept.figures)
        self.caches.add("user_states", self.users.figures)
        self.caches.add("checked_threads", self.turns.threads.checked.figures)
        for name, recent in (
            ("identities", self.keyring.memory.identities),
            ("keys", self.keyring.memory.keys),
        ):
            self.caches.add(name, partial(_figures_of, recent))

    def _committed(self, last: Position) -> None:
        self.position = last
        self.follower.wake()
        self.news.tell()

    def _jobs(self) -> Schedule:
        settings = self.settings
        schedule = Schedule()
        schedule.every(
            settings.orphan_every_seconds,
            "orphans",
            self.recovery.look,
            first=settings.orphan_start_seconds,
        )
        schedule.every(HOUR_SECONDS, "memory", self._grow_older)
        schedule.every(CHECKPOINT_SECONDS, "todo_checkpoint", self.todo.save)
        return schedule

    async def _grow_older(self) -> None:
        self.users.grow_older()

    def _fleet_jobs(self) -> Fleet:
        readers, times = self.readers, calendar(self.settings.timezone)
        streams = Repository(JOBS, log=self.log, writer=self.writer, readers=readers)
        return Fleet(
            (
                FleetJob(BOT_KEYS, times[BOT_KEYS], bot_keys(self.keyring, readers)),
                FleetJob(NODE_ROWS, times[NODE_ROWS], node_rows(self.log, readers)),
            ),
            streams=streams,
            nodes=self.nodes,
            log=self.log,
            readers=readers,
        )

    def _other_stream(self, stream: StreamName) -> None:
        if stream.startswith(JOBS_PREFIX):
            self.fleet.wake()

    def _status(self) -> NodeStatus:
        return NodeStatus(
            position=self.todo.position,
            views=self.follower.position,
            running=self.dispatcher.running,
            waiting=self.dispatcher.waiting,
            skew=self.nodes.skew,
        )

    def _tell(self, stream: StreamName, state: UserState) -> Open:
        """Arrange what a state leaves to be done; return what is open."""
        self.clients.changed(stream, state)
        user = self.users.peek(stream)
        if user is not None and user.read_only:  # a node of a newer release looks after them
            self.dispatcher.put(stream, None)
            return "work"
        due_at = self.turns.agenda.due_at(stream, state)
        self.dispatcher.put(stream, due_at)
        return open_work(state, due_at)

    def _nodes_changed(self) -> None:
        """Somebody came or died, or this node itself returned: everything has another place."""
        self.recovery.look_soon()
        self.dispatcher.wake()
        self.fleet.wake()

    def _look_again(self, stream: StreamName) -> None:
        """After a visit: what it left may be due again."""
        user = self.users.peek(stream)
        if user is not None:
            self.todo.changed(stream, user.state)
        elif not self._closing:  # evicted meanwhile: the log knows
            task = asyncio.ensure_future(self.todo.look(stream))
            self._looks.add(task)
            task.add_done_callback(self._looks.discard)

    async def start(self) -> None:
        """Say that this node lives, find what is open, and go to work."""
        await self.nodes.beat()
        self.nodes.status = self._status
        self.nodes.listen(self._nodes_changed)
        await self.gateway.look(GATEWAY_STREAM)
        await self.todo.start()
        self.follower.start()
        for work in (
            self.nodes.keep_beating(),
            self.todo.follow(),
            self.dispatcher.run(),
            self.fleet.run(),
        ):
            self._tasks.append(asyncio.ensure_future(work))
        self.schedule.start()

    async def close(self) -> None:
        """Let running turns end, write what waits, and close everything."""
        self._closing = True
        self.schedule.stop()
        await self._drain()
        await self._flush_activity()
        self.slots.leave()
        working = (*self._tasks, *self._looks)
        for task in working:
            task.cancel()
        await self.recovery.close()
        await self.profiles.close()
        await asyncio.gather(*working, return_exceptions=True)
        with contextlib.suppress(Exception):
            await self.todo.save()
        await self.users.close()
        closing = self.outside.close()
        if asyncio.iscoroutine(closing):
            await closing
        self.follower.stop()
        self.identities.close()
        self.writer.close()
        self.readers.shutdown()
        self.checkpoint.close()
        self.views.close()
        self.keyring.close()
        self.log.close()

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
        tasks = (asyncio.ensure_future(work), asyncio.ensure_future(self._hurry.wait()))
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _flush_activity(self) -> None:
        """Record the activity of those whom this node comes first for, as far as there is time."""
        if self.nodes.may_work and not self._hurry.is_set():
            streams = [s for s in self.todo.unrecorded() if self.nodes.rank(s) == 0]
            await self._unless_hurried(self.activity.flush(streams), FLUSH_SECONDS)

    def numbers(self) -> dict[str, float]:
        """Return what `/metrics` shows; never waits."""
        counts = {f"facts_{name}": float(n) for name, n in self.receiver.counts.items()}
        return {
            "appends_waiting": self.writer.waiting,
            "turns_waiting": self.dispatcher.waiting,
            "turns_running": self.dispatcher.running,
            "open_streams": len(self.todo),
            "activities_waiting": self.todo.records,
            "activities_recorded": self.activity.recorded,
            "nodes_alive": self.nodes.alive,
            "node_may_work": self.nodes.may_work,
            "clock_skew_seconds": self.nodes.skew / MICROS_PER_SECOND,
            **{name: float(n) for name, n in self.turns.counts.items()},
            "profiles_waiting": len(self.profiles),
            "identity_clashes": self.keyring.clashes,
            **self.follower.numbers(),
            **counts,
            **dict(self.caches.numbers()),
        }


def _figures_of(recent: Recent[Any, Any]) -> Figures:
    return Figures(
        size=len(recent),
        limit=recent.bound,
        hits=recent.hits,
        misses=recent.misses,
        evictions=recent.evictions,
    )


def open_outside(settings: Settings, *, openai_url: str, whapi_url: str) -> Outside:
    """Return clients of the real world, or of the simulators that stand in for it."""
    provider = OpenAIProvider(
        OpenAISettings(
            model=settings.model,
            instructions=settings.instructions,
            base_url=openai_url,
            mode=settings.openai_mode,
            run_seconds=settings.run_seconds,
        ),
        api_key=settings.openai_api_key.get_secret_value() or "simulated",
    )
    messenger = WhapiMessenger(
        WhapiSettings(
            base_url=whapi_url, channel=settings.channel, send_seconds=settings.send_seconds
        ),
        token=settings.whapi_token.get_secret_value() or "simulated",
    )

    async def close() -> None:
        await provider.close()
        await messenger.close()

    return Outside(provider=provider, messenger=messenger, close=close)


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
