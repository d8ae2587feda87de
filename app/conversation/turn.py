"""One turn: claimed by an append, run once at the provider, its reply handed over.

The claim is the only lock. Every later append decides again whether the run is still the one that
holds the turn, so that a paused process that wakes up late finds out and stops.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import aclosing
from typing import TypeVar

import structlog

from app.aggregates.answers import Claim, Claimed, Held
from app.aggregates.open_work import Delivery, Run
from app.aggregates.user import User
from app.aggregates.user_state import UserState
from app.conversation.activity import Activity
from app.conversation.agenda import Agenda, holder_of
from app.conversation.backoff import delay
from app.conversation.breaker import Breaker
from app.conversation.crash import CrashPoints
from app.conversation.current import Superseded, decide_as
from app.conversation.delivering import Delivering
from app.conversation.history import read_history
from app.conversation.nodes import Nodes
from app.conversation.policy import SECOND, TurnPolicy, micros
from app.conversation.ports import (
    Answer,
    ModelProvider,
    ProviderError,
    Said,
    Submitted,
    ThreadBusy,
    ThreadGone,
    Unreachable,
)
from app.conversation.repository import Repository
from app.conversation.run_ends import RunEnds
from app.conversation.texts import read_texts
from app.conversation.threads import Threads
from eventstore.sealing import Sealer
from eventstore.store import LogReader
from eventstore.types import StreamName

_log = structlog.get_logger(__name__)
R = TypeVar("R")

BREAKER_PATIENCE = 30 * SECOND
"""A message that has waited so long is tried even while the provider seems to be down."""

BUSY_PAUSE = 5 * SECOND
"""How long a turn is put back whose conversation stayed busy."""


class Turns:
    """Does what is open on a stream: recovers a run, delivers a reply, takes a turn."""

    def __init__(  # noqa: PLR0913 - the composition root's parts
        self,
        *,
        users: Repository[User, UserState],
        provider: ModelProvider,
        delivering: Delivering,
        activity: Activity,
        log: LogReader,
        readers: Executor,
        sealer: Sealer,
        nodes: Nodes,
        policy: TurnPolicy,
        crash: CrashPoints,
        jitter: Callable[[], float],
    ) -> None:
        """Take the parts."""
        self._users = users
        self._provider = provider
        self._delivering = delivering
        self._activity = activity
        self._log = log
        self._readers = readers
        self._sealer = sealer
        self._nodes = nodes
        self._policy = policy
        self._crash = crash
        self._jitter = jitter
        self._background: set[asyncio.Task[None]] = set()
        self.threads = Threads(
            users=users,
            provider=provider,
            log=log,
            max_age=policy.thread_age,
            crash=crash,
            history=self._history,
        )
        self.breaker = Breaker()
        self._ends = RunEnds(
            users=users,
            provider=provider,
            delivering=delivering,
            threads=self.threads,
            log=log,
            sealer=sealer,
            incarnation=nodes.incarnation,
            policy=policy,
            crash=crash,
            jitter=jitter,
            breaker=self.breaker,
        )
        self.agenda = Agenda(
            nodes,
            now=log.now,
            buffer=policy.buffer,
            delivery_due=delivering.due_at,
            activity=policy.activity,
        )
        """When this node visits a stream."""
        self.counts: Counter[str] = Counter()
        """Claims and take-overs that were won, and that another node had made just before."""

    async def work(self, stream: StreamName) -> None:
        """Visit a stream: at most one run, all of its delivery, and a due activity."""
        user = await self._users.look(stream)
        state = user.state
        if user.read_only or self.agenda.is_held(state) or not self._nodes.may_work:
            return
        holder = holder_of(state)
        if holder is None:
            if self.agenda.is_activity_due(state):
                await self._activity.record(stream)
            if state.pending:
                await self._take(stream, state)
        elif await self._hold(stream, holder):
            await self._go_on(stream)

    # -- what somebody left ------------------------------------------------------------------------

    async def _hold(self, stream: StreamName, holder: Run | Delivery) -> bool:
        """Take over what a dead process held; return whether this one holds it now.

        By an append, as a claim is: of all nodes that notice a death one goes on, and the dead one,
        should it only have been paused, can record nothing more.
        """
        nodes = self._nodes
        if holder.incarnation in {"", nodes.incarnation}:
            return True
        run = holder.id if isinstance(holder, Run) else holder.run
        answer = await self._users.decide(
            stream,
            lambda user: user.take_over(
                run,
                holder.incarnation,
                node=nodes.node,
                incarnation=nodes.incarnation,
                now=self._log.now(),
            ),
        )
        held = isinstance(answer, Held)
        self.counts["takeovers_won" if held else "takeovers_lost"] += 1
        if held:
            _log.info("TURN_TAKEN_OVER", userId=_owner(stream), run=run, node=holder.node)
        return held

    async def _go_on(self, stream: StreamName) -> None:
        state = (await self._users.look(stream)).state
        if state.run is not None:
            await self._ends.recover(stream, state.run)
        elif state.delivery is not None:
            await self._delivering.finish(stream)

    # -- a new turn -------------------------------------------------------------------------------

    async def _take(self, stream: StreamName, state: UserState) -> None:
        await self._let_through(state)
        if not self._nodes.may_work:
            return
        self._crash.reach("before_run_started")
        run = await self._claim(stream)
        if run is None:
            return
        self._crash.reach("after_run_started")
        user = await self._users.look(stream)
        if user.state.run is None or user.state.run.id != run:
            return
        self._show_typing(stream, user)
        try:
            await self._run(stream, user.state.run)
        except Superseded:
            _log.warning("RUN_SUPERSEDED", userId=_owner(stream), run=run)

    async def _claim(self, stream: StreamName) -> str | None:
        """Return the run that has the turn now, if it is ours."""
        run = f"run_{os.urandom(12).hex()}"
        nodes = self._nodes
        tried: list[Claim] = []

        def command(user: User) -> Claim:
            claim = user.claim(
                run,
                node=nodes.node,
                incarnation=nodes.incarnation,
                now=self._log.now(),
                policy=self._policy.buffer,
            )
            tried.append(claim)
            return claim

        if isinstance(await self._users.decide(stream, command), Claimed):
            self.counts["claims_won"] += 1
            return run
        if any(isinstance(claim, Claimed) for claim in tried):  # its append met a conflict
            self.counts["claims_lost"] += 1
        return None

    async def _let_through(self, state: UserState) -> None:
        """Return when the breaker lets a turn through, or the turn has waited long enough."""
        while state.pending and self.breaker.state != "closed":
            pause = self.breaker.allow(_monotonic())
            left = state.pending[0].at + BREAKER_PATIENCE - self._log.now()
            if pause <= 0 or left <= 0:
                return
            await asyncio.sleep(min(pause, left / SECOND))

    async def _run(self, stream: StreamName, run: Run) -> None:
        user = await self._users.look(stream)
        waiting = tuple(p for p in user.state.pending if p.version <= run.up_to)
        texts = await self._in_reader(read_texts, self._log, self._sealer, stream, waiting)
        if not texts:  # everything was taken back since the claim
            await self._ends.cancel(stream, run, "superseded", billed="nothing")
            return
        try:
            answer = await self._ask_in_thread(stream, run, texts)
        except ThreadBusy:
            self.breaker.record(ok=True, now=_monotonic())
            retry_at = self._log.now() + BUSY_PAUSE
            await self._ends.cancel(stream, run, "thread_busy", billed="nothing", retry_at=retry_at)
            return
        except ProviderError as error:
            self._ends.judge(error)
            await self._ends.after_error(stream, run.id, error)
            return
        self.breaker.record(ok=True, now=_monotonic())
        await self._ends.finish(stream, run.id, answer)

    async def _ask_in_thread(self, stream: StreamName, run: Run, texts: tuple[str, ...]) -> Answer:
        """Run in the user's conversation: renewed if old, replaced if gone, waited for if busy."""
        deadline = self._log.now() + self._policy.busy
        if run.attempt > 1:
            await self.threads.trim((await self._users.look(stream)).state)
        replaced = False
        attempt = 0
        while True:
            try:
                thread = await self.threads.current(stream, run)
                return await self._ask(stream, run, thread, texts)
            except ThreadGone:
                linked = (await self._users.look(stream)).state.thread
                if replaced or linked is None:
                    raise
                replaced = True
                await self.threads.reset(stream, run, linked.id, "gone")
            except ThreadBusy:
                attempt += 1
                pause = delay(attempt, retry_after=None, jitter=self._jitter())
                if self._log.now() + micros(pause) > deadline:
                    raise
                await asyncio.sleep(pause)
                # A run that was lost without its id may be what kept it busy: its traces go.
                await self.threads.trim((await self._users.look(stream)).state)

    async def _ask(
        self, stream: StreamName, run: Run, thread: str, texts: tuple[str, ...]
    ) -> Answer:
        steps = self._provider.run(thread=thread, texts=texts, run=run.id, user=_owner(stream))
        async with aclosing(steps):
            async for step in steps:
                if isinstance(step, Answer):
                    return step
                await self._submitted(stream, run, thread, step)
        code = "no_answer"
        raise Unreachable(code, billed=True)

    async def _submitted(self, stream: StreamName, run: Run, thread: str, step: Submitted) -> None:
        self._crash.reach("before_run_submitted")
        await decide_as(
            self._users,
            stream,
            run.id,
            run.incarnation,
            lambda user: user.run_submitted(
                run.id, step.response, thread=thread, now=self._log.now()
            ),
        )
        self._crash.reach("after_run_submitted")

    async def _history(self, user: User) -> tuple[Said, ...]:
        return await self._in_reader(read_history, self._log, self._sealer, user)

    # -- small parts ------------------------------------------------------------------------------

    def _show_typing(self, stream: StreamName, user: User) -> None:
        task = asyncio.ensure_future(self._delivering.typing(stream, user))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _in_reader(self, work: Callable[..., R], *arguments: object) -> R:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, work, *arguments)


def _owner(stream: StreamName) -> str:
    return stream.partition("/")[2]


def _monotonic() -> float:
    return asyncio.get_running_loop().time()
