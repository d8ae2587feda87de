"""The client view's last activity and token count, moved together some time after the last event.

The rules are M003's: what came since the last record adds to what was recorded if the thread is the
same, and stands alone if it is another, or the first. All of it follows from the log: a process
that dies before the record leaves it due, to itself or to another node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from app.aggregates.answers import Done
from app.aggregates.events import ResetReason
from app.aggregates.stream import ReadOnlyUser
from app.aggregates.user import User
from app.aggregates.user_state import UserState
from app.conversation.crash import CrashPoints
from app.conversation.repository import Repository
from eventstore.errors import EventStoreError
from eventstore.types import Micros, StreamName

_log = structlog.get_logger(__name__)

AT_A_TIME = 200
"""Records under way at once when all are flushed: many to a commit."""


class Activity:
    """Records activity. Belongs to one event loop."""

    def __init__(
        self,
        *,
        users: Repository[User, UserState],
        now: Callable[[], Micros],
        delay: int,
        crash: CrashPoints,
    ) -> None:
        """`delay`: µs from the last event to its record."""
        self._users = users
        self._now = now
        self._delay = delay
        self._crash = crash
        self.recorded = 0
        """Records of this process."""

    async def record(self, stream: StreamName, *, delay: int | None = None) -> None:
        """Record the activity if it is due, after `delay` instead of the usual one if given."""
        self._crash.reach("before_activity_recorded")
        wait = self._delay if delay is None else delay

        def command(user: User) -> UserState | None:
            before = user.state
            done = user.record_activity(now=self._now(), delay=wait)
            return before if isinstance(done, Done) else None

        before = await self._users.decide(stream, command)
        if before is not None:
            self.recorded += 1
            self._crash.reach("after_activity_recorded")
            _say(stream, before)

    async def flush(self, streams: Iterable[StreamName]) -> None:
        """Record what is not recorded yet, due or not. What fails stays due."""
        left = list(streams)
        for start in range(0, len(left), AT_A_TIME):
            some = left[start : start + AT_A_TIME]
            await asyncio.gather(*[self._flush(stream) for stream in some])

    async def _flush(self, stream: StreamName) -> None:
        try:
            await self.record(stream, delay=0)
        except ReadOnlyUser:
            return  # a node of a newer release looks after them
        except EventStoreError as error:
            name = type(error).__name__
            _log.error("BD_USER_ERROR", operation="activity", userId=_owner(stream), error=name)


def reset_of(before: UserState) -> tuple[ResetReason | None, int]:
    """Return why a record does not add to the one before it, and the tokens it left behind.

    None: it does, since the thread is the same, or there is none. Tokens left behind by a thread
    that was lost, renewed or cleaned were told when that happened: they are not told twice.
    """
    if before.thread is None:
        return None, 0
    recorded = before.recorded
    if recorded is None:
        return "user_not_found", 0
    if recorded.thread == before.thread.id:
        return None, 0
    if recorded.thread is None:
        return "first_time", 0
    lost = recorded.tokens if before.last_reset in {None, "thread_changed"} else 0
    return "thread_changed", lost


def _say(stream: StreamName, before: UserState) -> None:
    reason, lost = reset_of(before)
    if reason is not None:
        extra = {"tokensLost": lost} if lost else {}
        _log.info("THREAD_TOKENS_RESET", userId=_owner(stream), resetReason=reason, **extra)


def _owner(stream: StreamName) -> str:
    return stream.partition("/")[2]
