"""One turn: claimed by an append, run once at the provider, its reply handed over.

The claim is the only lock. Every later append decides again whether the run is still the one that
holds the turn, so that a paused process that wakes up late finds out and stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import aclosing
from typing import TypeVar

import structlog

from app.aggregates.answers import (
    Apology,
    Billed,
    Claimed,
    Completed,
    GivenUp,
    Spent,
)
from app.aggregates.events import CancelReason, Reply
from app.aggregates.open_work import Run
from app.aggregates.user import User
from app.aggregates.user_state import UserState
from app.aggregates.user_turn import due_at
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
    RateLimited,
    Refused,
    ResponseGone,
    Running,
    Said,
    Submitted,
    ThreadBusy,
    ThreadGone,
    Unreachable,
)
from app.conversation.repository import Repository
from app.conversation.texts import read_texts, split_reply
from app.conversation.threads import Threads
from eventstore.sealing import Sealer
from eventstore.store import LogReader
from eventstore.types import StreamName

_log = structlog.get_logger(__name__)
R = TypeVar("R")

BREAKER_PATIENCE = 30 * SECOND
"""A message that has waited so long is tried even while the provider seems to be down."""

RECOVERY_PATIENCE = 600 * SECOND
"""An open run that nobody could be asked about for so long is given up, its usage unknown."""

BUSY_PAUSE = 5 * SECOND
"""How long a turn is put back whose conversation stayed busy."""

POLL_SECONDS = 1.0


class Turns:
    """Does what is open on a stream: recovers a run, delivers a reply, takes a turn."""

    def __init__(  # noqa: PLR0913 - the composition root's parts
        self,
        *,
        users: Repository[User, UserState],
        provider: ModelProvider,
        delivering: Delivering,
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
        self._log = log
        self._readers = readers
        self._sealer = sealer
        self._nodes = nodes
        self._policy = policy
        self._crash = crash
        self._jitter = jitter
        self._background: set[asyncio.Task[None]] = set()
        self._threads = Threads(
            users=users,
            provider=provider,
            log=log,
            max_age=policy.thread_age,
            crash=crash,
            history=self._history,
        )
        self.breaker = Breaker()

    # -- what is to be done -----------------------------------------------------------------------

    def due_at(self, state: UserState) -> int | None:
        """Return when this node should visit the stream (µs); None: not of itself.

        What other nodes hold, and what a process left behind, is `recovery`'s to notice.
        """
        delivery = state.delivery
        if delivery is not None:
            unowned = not delivery.node
            if unowned or self._nodes.is_mine(delivery.node, delivery.incarnation):
                return self._delivering.due_at(delivery)
            return None
        if state.run is not None:
            return None
        return due_at(state, self._policy.buffer)

    def is_held(self, state: UserState) -> bool:
        """Tell whether a living node other than this process is at work on the stream."""
        holder = state.run or state.delivery
        if holder is None or not holder.node:
            return False
        if self._nodes.is_mine(holder.node, holder.incarnation):
            return False
        return self._nodes.is_alive(holder.node, holder.incarnation)

    async def work(self, stream: StreamName) -> None:
        """Visit a stream: at most one run, and all of its delivery."""
        state = (await self._users.look(stream)).state
        if self.is_held(state):
            return
        if state.run is not None:
            await self._recover(stream, state.run)
        elif state.delivery is not None:
            await self._delivering.finish(stream)
        else:
            await self._take(stream, state)

    # -- a new turn -------------------------------------------------------------------------------

    async def _take(self, stream: StreamName, state: UserState) -> None:
        await self._let_through(state)
        self._crash.reach("before_run_started")
        run = f"run_{os.urandom(12).hex()}"
        nodes = self._nodes
        claim = await self._users.decide(
            stream,
            lambda user: user.claim(
                run,
                node=nodes.node,
                incarnation=nodes.incarnation,
                now=self._log.now(),
                policy=self._policy.buffer,
            ),
        )
        if not isinstance(claim, Claimed):
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
            await self._cancel(stream, run, "superseded", billed="nothing")
            return
        try:
            answer = await self._ask_in_thread(stream, run, texts)
        except ThreadBusy:
            self.breaker.record(ok=True, now=_monotonic())
            retry_at = self._log.now() + BUSY_PAUSE
            await self._cancel(stream, run, "thread_busy", billed="nothing", retry_at=retry_at)
            return
        except ProviderError as error:
            self._judge(error)
            await self._after_error(stream, run.id, error)
            return
        self.breaker.record(ok=True, now=_monotonic())
        await self._finish(stream, run.id, answer)

    async def _ask_in_thread(self, stream: StreamName, run: Run, texts: tuple[str, ...]) -> Answer:
        """Run in the user's conversation: renewed if old, replaced if gone, waited for if busy."""
        deadline = self._log.now() + self._policy.busy
        if run.attempt > 1:
            await self._threads.trim((await self._users.look(stream)).state)
        replaced = False
        attempt = 0
        while True:
            try:
                thread = await self._threads.current(stream, run)
                return await self._ask(stream, run, thread, texts)
            except ThreadGone:
                linked = (await self._users.look(stream)).state.thread
                if replaced or linked is None:
                    raise
                replaced = True
                await self._threads.reset(stream, run, linked.id, "gone")
            except ThreadBusy:
                attempt += 1
                pause = delay(attempt, retry_after=None, jitter=self._jitter())
                if self._log.now() + micros(pause) > deadline:
                    raise
                await asyncio.sleep(pause)
                # A run that was lost without its id may be what kept it busy: its traces go.
                await self._threads.trim((await self._users.look(stream)).state)

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
        await self._current(
            stream,
            run.id,
            lambda user: user.run_submitted(
                run.id, step.response, thread=thread, now=self._log.now()
            ),
        )
        self._crash.reach("after_run_submitted")

    async def _history(self, user: User) -> tuple[Said, ...]:
        return await self._in_reader(read_history, self._log, self._sealer, user)

    # -- how a run ends ---------------------------------------------------------------------------

    async def _finish(self, stream: StreamName, run: str, answer: Answer) -> None:
        """Record an answer with its usage in one append, and deliver it."""
        state = (await self._users.look(stream)).state
        if state.run is None or state.run.id != run:
            raise Superseded
        billed = _spent(answer)
        if isinstance(billed, Spent) and billed.total <= 0:
            _log.info("TOKEN_COUNT_SKIPPED", userId=_owner(stream), total=billed.total)
        parts = split_reply(answer.text) if answer.status in {"completed", "incomplete"} else ()
        if not parts:
            code = answer.code or f"response_{answer.status}"
            await self._fail(stream, run, code, billed=billed)
            return
        thread = state.run.thread or ""
        reply = self._sealer.seal(_owner(stream), stream, "reply", Reply(parts=parts))
        self._crash.reach("before_run_completed")
        done = await self._current(
            stream,
            run,
            lambda user: user.run_completed(
                run,
                answer.response,
                reply=reply,
                parts=len(parts),
                billed=billed,
                thread=thread,
                last_item=answer.last_item,
                now=self._log.now(),
            ),
        )
        self._crash.reach("after_run_completed")
        if isinstance(done, Completed):
            await self._delivering.finish(stream, run, parts)

    async def _after_error(self, stream: StreamName, run: str, error: ProviderError) -> None:
        """An attempt failed. What may have been billed is looked up before anything is tried."""
        state = (await self._users.look(stream)).state
        current = state.run
        if current is None or current.id != run:
            raise Superseded
        if error.billed and current.response is not None:
            try:
                answer = await self._await_response(current.response)
            except ProviderError as silence:
                # Nobody can be asked now: the run stays open, and recovery asks again.
                _log.warning("RECOVERY_DEFERRED", userId=_owner(stream), code=silence.code)
                return
            if answer is not None:
                await self._finish(stream, run, answer)
                return
        if error.billed:
            await self._trim(state)
        await self._fail(
            stream,
            run,
            error.code,
            billed="unknown" if error.billed else "nothing",
            retry_after=error.retry_after,
            final=isinstance(error, Refused),
        )

    async def _fail(  # noqa: PLR0913 - what a failed attempt leaves behind
        self,
        stream: StreamName,
        run: str,
        code: str,
        *,
        billed: Billed,
        retry_after: float | None = None,
        final: bool = False,
    ) -> None:
        attempt = (await self._users.look(stream)).state.attempts + 1
        wait = delay(attempt, retry_after=retry_after, jitter=self._jitter())
        last = final or attempt >= self._policy.attempts
        retry_at = None if last else self._log.now() + micros(wait)
        apology = self._apology(stream)
        end = await self._current(
            stream,
            run,
            lambda user: user.run_failed(
                run,
                code,
                billed=billed,
                retry_at=retry_at,
                apology=apology,
                now=self._log.now(),
            ),
        )
        level = _log.error if isinstance(end, GivenUp) else _log.warning
        level("RUN_FAILED", userId=_owner(stream), run=run, code=code, attempt=attempt)
        self._crash.reach("after_run_failed")
        await self._apologise(stream, end)

    async def _cancel(
        self,
        stream: StreamName,
        run: Run,
        reason: CancelReason,
        *,
        billed: Billed,
        retry_at: int | None = None,
    ) -> None:
        apology = self._apology(stream)
        end = await self._current(
            stream,
            run.id,
            lambda user: user.run_cancelled(
                run.id,
                reason,
                billed=billed,
                retry_at=retry_at,
                apology=apology,
                limit=self._policy.attempts,
                now=self._log.now(),
            ),
        )
        _log.info("RUN_CANCELLED", userId=_owner(stream), run=run.id, reason=reason)
        await self._apologise(stream, end)

    async def _apologise(self, stream: StreamName, end: object) -> None:
        if not isinstance(end, GivenUp):
            return
        self._crash.reach("after_turn_parked")
        _log.error("TURN_PARKED", userId=_owner(stream), attempts=end.attempts)
        if end.apologise:
            await self._delivering.finish(stream)

    # -- recovery ---------------------------------------------------------------------------------

    async def _recover(self, stream: StreamName, run: Run) -> None:
        """Settle a run that a dead process left open: adopt its answer, or make it due again."""
        _log.info("RUN_RECOVERED", userId=_owner(stream), run=run.id)
        try:
            self._crash.reach("during_recovery")
            answer = None if run.response is None else await self._await_response(run.response)
            if answer is None:
                await self._trim((await self._users.look(stream)).state)
                await self._cancel(stream, run, "orphaned", billed="unknown")
            elif answer.status == "cancelled":
                await self._cancel(stream, run, "orphaned", billed=_spent(answer))
            else:
                await self._finish(stream, run.id, answer)
        except Superseded:
            return
        except ProviderError as error:
            self._judge(error)
            _log.warning("RECOVERY_DEFERRED", userId=_owner(stream), code=error.code)
            if self._log.now() > run.started_at + RECOVERY_PATIENCE:
                with contextlib.suppress(Superseded):
                    await self._cancel(stream, run, "orphaned", billed="unknown")
            # Else nobody can be asked now: the run stays open and the next look tries again.

    async def _await_response(self, response: str) -> Answer | None:
        """Return what became of a response, cancelling one that takes too long; None: gone."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._policy.recovery_seconds
        cancelled = False
        while True:
            try:
                found = await self._provider.retrieve(response)
            except ResponseGone:
                return None
            if not isinstance(found, Running):
                return found
            if loop.time() >= deadline:
                if cancelled:
                    return None
                cancelled = True
                await self._provider.cancel(response)
                deadline = loop.time() + 10 * POLL_SECONDS
            await asyncio.sleep(POLL_SECONDS)

    async def _trim(self, state: UserState) -> None:
        """Delete what a lost run may have left; if that cannot be now, the next attempt will."""
        try:
            await self._threads.trim(state)
        except ProviderError as error:
            _log.info("TRIM_DEFERRED", code=error.code)

    # -- small parts ------------------------------------------------------------------------------

    async def _current(self, stream: StreamName, run: str, command: Callable[[User], R]) -> R:
        return await decide_as(self._users, stream, run, command)

    def _apology(self, stream: StreamName) -> Apology:
        reply = Reply(parts=(self._policy.apology,))
        sealed = self._sealer.seal(_owner(stream), stream, "reply", reply)
        return Apology(f"sorry_{os.urandom(12).hex()}", sealed)

    def _judge(self, error: ProviderError) -> None:
        overloaded = isinstance(error, RateLimited) and error.retry_after is None
        down = isinstance(error, Unreachable) or overloaded
        self.breaker.record(ok=not down, now=_monotonic())

    def _show_typing(self, stream: StreamName, user: User) -> None:
        task = asyncio.ensure_future(self._delivering.typing(stream, user))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _in_reader(self, work: Callable[..., R], *arguments: object) -> R:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, work, *arguments)


def _spent(answer: Answer) -> Billed:
    usage = answer.usage
    if usage is None:
        return "unknown"
    return Spent(
        total=usage.total,
        input=usage.input,
        output=usage.output,
        cached=usage.cached,
        reasoning=usage.reasoning,
        model=answer.model,
    )


def _owner(stream: StreamName) -> str:
    return stream.partition("/")[2]


def _monotonic() -> float:
    return asyncio.get_running_loop().time()
