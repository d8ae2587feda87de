"""How a run ends: answered, failed, cancelled, or settled after its process died.

Each end is one append, made only while the run still holds its turn and this process the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import TypeVar

import structlog

from app.aggregates.answers import Apology, Billed, Completed, GivenUp, Spent
from app.aggregates.events import CancelReason, Reply
from app.aggregates.open_work import Run
from app.aggregates.user import User
from app.aggregates.user_state import UserState
from app.conversation.backoff import delay
from app.conversation.breaker import Breaker
from app.conversation.crash import CrashPoints
from app.conversation.current import Superseded, decide_as
from app.conversation.delivering import Delivering
from app.conversation.policy import SECOND, TurnPolicy, micros
from app.conversation.ports import (
    Answer,
    ModelProvider,
    ProviderError,
    RateLimited,
    Refused,
    ResponseGone,
    Running,
    Unreachable,
)
from app.conversation.repository import Repository
from app.conversation.texts import split_reply
from app.conversation.threads import Threads
from eventstore.sealing import Sealer
from eventstore.store import LogReader
from eventstore.types import StreamName

_log = structlog.get_logger(__name__)
R = TypeVar("R")

RECOVERY_PATIENCE = 600 * SECOND
"""An open run that nobody could be asked about for so long is given up, its usage unknown."""

POLL_SECONDS = 1.0


class RunEnds:
    """Ends the runs that this process holds."""

    def __init__(  # noqa: PLR0913 - the composition root's parts
        self,
        *,
        users: Repository[User, UserState],
        provider: ModelProvider,
        delivering: Delivering,
        threads: Threads,
        log: LogReader,
        sealer: Sealer,
        incarnation: str,
        policy: TurnPolicy,
        crash: CrashPoints,
        jitter: Callable[[], float],
        breaker: Breaker,
    ) -> None:
        """Take the parts."""
        self._users = users
        self._provider = provider
        self._delivering = delivering
        self._threads = threads
        self._log = log
        self._sealer = sealer
        self._incarnation = incarnation
        self._policy = policy
        self._crash = crash
        self._jitter = jitter
        self._breaker = breaker

    async def finish(self, stream: StreamName, run: str, answer: Answer) -> None:
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

    async def after_error(self, stream: StreamName, run: str, error: ProviderError) -> None:
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
                await self.finish(stream, run, answer)
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

    async def cancel(
        self,
        stream: StreamName,
        run: Run,
        reason: CancelReason,
        *,
        billed: Billed,
        retry_at: int | None = None,
    ) -> None:
        """End a run without an answer; its turn is put back, or given up."""
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

    async def recover(self, stream: StreamName, run: Run) -> None:
        """Settle a run that a dead process left open: adopt its answer, or make it due again."""
        _log.info("RUN_RECOVERED", userId=_owner(stream), run=run.id)
        try:
            self._crash.reach("during_recovery")
            answer = None if run.response is None else await self._await_response(run.response)
            if answer is None:
                await self._trim((await self._users.look(stream)).state)
                await self.cancel(stream, run, "orphaned", billed="unknown")
            elif answer.status == "cancelled":
                await self.cancel(stream, run, "orphaned", billed=_spent(answer))
            else:
                await self.finish(stream, run.id, answer)
        except Superseded:
            return
        except ProviderError as error:
            self.judge(error)
            _log.warning("RECOVERY_DEFERRED", userId=_owner(stream), code=error.code)
            if self._log.now() > run.started_at + RECOVERY_PATIENCE:
                with contextlib.suppress(Superseded):
                    await self.cancel(stream, run, "orphaned", billed="unknown")
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
        return await decide_as(self._users, stream, run, self._incarnation, command)

    def _apology(self, stream: StreamName) -> Apology:
        reply = Reply(parts=(self._policy.apology,))
        sealed = self._sealer.seal(_owner(stream), stream, "reply", reply)
        return Apology(f"sorry_{os.urandom(12).hex()}", sealed)

    def judge(self, error: ProviderError) -> None:
        """Let the breaker know of an error."""
        overloaded = isinstance(error, RateLimited) and error.retry_after is None
        down = isinstance(error, Unreachable) or overloaded
        self._breaker.record(ok=not down, now=_monotonic())


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
