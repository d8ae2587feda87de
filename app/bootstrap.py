"""The composition root: where real parts are made and wired together, and nowhere else.

Nothing runs here: `app.bot` starts a bot's parts and brings them to their end.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from app.aggregates.gateway import Gateway, GatewayState
from app.aggregates.jobs import JOBS_PREFIX
from app.aggregates.user import User
from app.aggregates.user_state import UserState
from app.caches import Expiring, Registry, figures_of
from app.conversation.activity import Activity
from app.conversation.agenda import Open, open_work
from app.conversation.asked import Asked
from app.conversation.cells import HOUR_SECONDS
from app.conversation.client_cache import ClientCache, Kept
from app.conversation.crash import CrashPoints
from app.conversation.delivering import Delivering
from app.conversation.dispatcher import Dispatcher
from app.conversation.identities import Identities
from app.conversation.kinds import GATEWAYS, JOBS, USERS
from app.conversation.leftovers import BOT
from app.conversation.nodes import Nodes, node_name
from app.conversation.policy import TurnPolicy
from app.conversation.profiles import Profiles
from app.conversation.receiving import Receiver
from app.conversation.recovery import Recovery
from app.conversation.repository import Repository
from app.conversation.slots import Slots
from app.conversation.todo import TodoList
from app.conversation.todo_checkpoint import TodoCheckpoint
from app.conversation.turn import Turns
from app.jobs.bot_keys import bot_keys
from app.jobs.calendar import BOT_KEYS, NODE_ROWS, calendar
from app.jobs.fleet import Fleet, FleetJob
from app.jobs.node_rows import node_rows
from app.jobs.schedule import Schedule
from app.jobs.thread_files import LOOK_SECONDS, ThreadFiles, keeping, removing
from app.news import News
from app.outside import Outside
from app.projections import MODELS, Follower, FollowerProcess, Views
from app.projections.following import arguments as follower_arguments
from app.release import release
from app.settings import Settings
from app.skips import ControlLedger
from app.stores import (
    open_keyring,
    open_log,
    open_writer,
    refuse_to_begin_anew,
    refuse_to_lose_keys,
)
from eventstore.sealing import Sealer
from eventstore.types import Position, StreamName

READERS = 4
CHECKPOINT_SECONDS = 2.0
KEYS_SECONDS = 10.0
"""How soon it is noticed that keys can be made again; a locked keyring waits as long each time."""


class Parts:
    """The parts of one bot, and what they tell each other."""

    def __init__(self, settings: Settings, outside: Outside, slots: Slots | None = None) -> None:
        """Open the stores. `slots`: those of the node, if shared."""
        self.settings = settings
        self.slots = (slots or Slots(settings.runs_at_once)).share(most=settings.runs_at_once)
        refuse_to_begin_anew(settings)
        self.log = open_log(settings, server=True)
        self.position = self.log.head().position
        """Where the log ends, as far as this process has written it or begun with it."""
        with contextlib.ExitStack() as opened:
            opened.callback(self.log.close)
            refuse_to_lose_keys(settings, self.log)
            self.keyring = open_keyring(settings)
            opened.callback(self.keyring.close)
            self.keyring.ensure_keys([BOT])
            self.writer = open_writer(settings, self.log)
            opened.callback(self.writer.close)
            self.sealer = Sealer(self.keyring)
            self.readers = ThreadPoolExecutor(READERS, thread_name_prefix="hilo-reader")
            self.crash = CrashPoints(settings.crash_at)
            self.outside = outside
            self.policy = TurnPolicy.of(settings)
            self.news = News()
            self._looks: set[asyncio.Task[None]] = set()
            self._closing = False
            self.caches = Registry()
            self._keep_aggregates()
            self._take_in()
            self._take_turns()
            self._look_after_them()
            self._follow()
            opened.pop_all()

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
            release=release(),
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
        self.follower = self._follower()
        self.writer.listen(self._committed)
        kept: Expiring[StreamName, Kept] = Expiring(
            limit=self.settings.client_cache, ttl=self.settings.client_cache_hours * 3600
        )
        self.clients = ClientCache(kept, views=self.views, users=self.users, readers=self.readers)
        self.asked = Asked.owned(self.settings.bot_directory / "hooks.db")
        self.profiles = Profiles(
            asked=self.asked,
            users=self.users,
            messenger=self.outside.messenger,
            clients=self.clients,
            sealer=self.sealer,
            readers=self.readers,
            now=self.log.now,
            jitter=random.random,
        )
        self.thread_files = self._keep_thread_files()
        self.caches.add("clients", kept.figures)
        self.caches.add("user_states", self.users.figures)
        self.caches.add("checked_threads", self.turns.threads.checked.figures)
        self.caches.add("identities", partial(figures_of, self.keyring.memory.identities))
        self.caches.add("keys", partial(figures_of, self.keyring.memory.keys))
        self.caches.add("stream_names", lambda: self.follower.progress.report.names)

    def _follower(self) -> Follower | FollowerProcess:
        settings = self.settings
        if settings.read_models == "process" and not settings.on_postgres:
            where = follower_arguments(settings.data, settings.bot, settings.logs_directory)
            return FollowerProcess(self.views, MODELS, where)
        ledger = ControlLedger(settings, settings.bot)
        return Follower(self.log, self.views, MODELS, ledger=ledger, worker=True)

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
        schedule.every(KEYS_SECONDS, "keys", self.identities.try_again)
        schedule.every(CHECKPOINT_SECONDS, "todo_checkpoint", self.todo.save)
        return schedule

    def _keep_thread_files(self) -> ThreadFiles | None:
        settings, readers = self.settings, self.readers
        if not settings.thread_files:
            remove = removing(settings, self.keyring, readers=readers)
            self.schedule.every(HOUR_SECONDS, "thread_files", remove, first=LOOK_SECONDS)
            return None
        files = keeping(settings, self.views, self.keyring, readers=readers)
        self.schedule.every(LOOK_SECONDS, "thread_files", files.look, first=0)
        return files

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

    def _tell(self, stream: StreamName, state: UserState) -> Open:
        """Arrange what a state leaves to be done; return what is open."""
        self.clients.changed(stream, state)
        if self.users.is_read_only(stream):  # a node of a newer release looks after them
            self.dispatcher.put(stream, None)
            return "work"
        due_at = self.turns.agenda.due_at(stream, state)
        self.dispatcher.put(stream, due_at)
        return open_work(state, due_at)

    def _look_again(self, stream: StreamName) -> None:
        """After a visit: what it left may be due again."""
        user = self.users.peek(stream)
        if user is not None:
            self.todo.changed(stream, user.state)
        elif not self._closing:  # evicted meanwhile: the log knows
            task = asyncio.ensure_future(self.todo.look(stream))
            self._looks.add(task)
            task.add_done_callback(self._looks.discard)
