"""A user's conversation at the provider: started, renewed, checked, trimmed (A7)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog

from app.aggregates.answers import ThreadLeft, ThreadLinked, ThreadNeed
from app.aggregates.events import ResetReason
from app.aggregates.open_work import Run, Thread
from app.aggregates.user import User
from app.aggregates.user_state import UserState
from app.caches import Expiring
from app.conversation.crash import CrashPoints
from app.conversation.current import decide_as
from app.conversation.ports import ModelProvider, Refused, Said, ThreadGone
from app.conversation.repository import Repository
from eventstore.store import LogReader
from eventstore.types import StreamName

_log = structlog.get_logger(__name__)

CHECK_SECONDS = 3600.0
"""How long a conversation that held something is believed to."""

CHECKED_THREADS = 1000

_REASONS: dict[ThreadNeed, ResetReason] = {"renew": "expired", "refill": "gone"}


History = Callable[[User], Awaitable[Sequence[Said]]]
"""Gives what was said with a user before the messages that wait."""


class Threads:
    """The conversations of a bot's users. Belongs to one event loop."""

    def __init__(  # noqa: PLR0913 - the composition root's parts
        self,
        *,
        users: Repository[User, UserState],
        provider: ModelProvider,
        log: LogReader,
        max_age: int,
        crash: CrashPoints,
        history: History,
    ) -> None:
        """Renew conversations older than `max_age` (µs); `history` fills those of an import."""
        self._users = users
        self._provider = provider
        self._log = log
        self._max_age = max_age
        self._crash = crash
        self._history = history
        self.checked: Expiring[str, bool] = Expiring(limit=CHECKED_THREADS, ttl=CHECK_SECONDS)
        """Conversations of which this process saw lately whether they hold something."""

    async def current(self, stream: StreamName, run: Run) -> str:
        """Return the conversation to run in: the current one, or a new one (A7)."""
        user = await self._users.look(stream)
        thread = user.state.thread
        need = user.thread_needs(self._log.now(), self._max_age)
        if thread is not None and need == "ok":
            await self._check(stream, run, thread)
            return thread.id
        created = await self._provider.start_thread({"user": _owner(stream), "run": run.id})
        self._crash.reach("after_thread_created")
        newest = None
        if need == "refill":
            newest = await self._provider.fill_thread(created, await self._history(user))
        linked = await decide_as(
            self._users,
            stream,
            run.id,
            run.incarnation,
            lambda user: user.start_thread(
                created,
                reason=_REASONS.get(need),
                run=run.id,
                last_item=newest,
                now=self._log.now(),
            ),
        )
        if isinstance(linked, ThreadLinked) and linked.left is not None:
            _log_reset(stream, linked.reason, linked.lost)
        self._crash.reach("after_thread_started")
        return created

    async def _check(self, stream: StreamName, run: Run, thread: Thread) -> None:
        """Now and then: a conversation that was emptied at OpenAI counts from 0 again."""
        if thread.tokens == 0 or self.checked.get(thread.id):
            return
        self.checked.put(thread.id, True)  # noqa: FBT003 - a set would not expire
        if await self._provider.is_empty(thread.id):
            await self.reset(stream, run, thread.id, "empty")

    async def reset(self, stream: StreamName, run: Run, thread: str, reason: ResetReason) -> None:
        """Leave the conversation, or count from 0 again, and log what was counted on it."""
        left = await decide_as(
            self._users,
            stream,
            run.id,
            run.incarnation,
            lambda user: user.reset_thread(reason, thread=thread, run=run.id, now=self._log.now()),
        )
        if isinstance(left, ThreadLeft):
            _log_reset(stream, left.reason, left.lost)

    async def trim(self, state: UserState) -> None:
        """Delete what a lost run may have left in the conversation after the last known item."""
        thread = state.thread
        if thread is None or (thread.last_item is None and thread.tokens > 0):
            return  # nothing to trim, or nobody knows back to where
        try:
            extra = await self._provider.items_after(thread.id, thread.last_item)
            for item in extra:
                await self._provider.delete_item(thread.id, item)
        except (ThreadGone, Refused):
            return  # the next run notices, and starts a new conversation


def _log_reset(stream: StreamName, reason: ResetReason, lost: int) -> None:
    extra = {"tokensLost": lost} if lost else {}
    _log.info("THREAD_TOKENS_RESET", userId=_owner(stream), resetReason=reason, **extra)


def _owner(stream: StreamName) -> str:
    return stream.partition("/")[2]
