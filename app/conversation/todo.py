"""Who waits for an answer: a to-do list derived from the log, and back in memory after a restart.

The list is kept in memory as the set of streams with open work, and the set of those where only the
record of an activity is still to come: many more, and nobody waits for them. Its checkpoint in
`todo.db` is a position and those sets, in one transaction: a stream that is in neither set nor
mentioned after the position has nothing open. Without a checkpoint (todo.db was deleted) every user
is looked at once, in the background. A stale entry can only make a turn late, never early: the
claim decides.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial

import structlog

from app.aggregates.user import User
from app.aggregates.user_state import UserState
from app.conversation.agenda import Open
from app.conversation.repository import Repository
from app.conversation.stretches import Stretches
from app.conversation.todo_checkpoint import Listed, TodoCheckpoint
from eventstore.errors import CursorMismatch, EventStoreError
from eventstore.store import LogReader
from eventstore.subscription import Batch, Subscription
from eventstore.types import Appended, Cursor, Epoch, Position, StreamName, Version

_log = structlog.get_logger(__name__)
PREFIX = "user/"
PAGE = 5000
FOLLOW_SECONDS = 0.25
"""Between two looks at the log, unless a page was full. A watch of the log would tell sooner, for a
thread of its own: what this process commits it looks at without, and what others commit is due only
after seconds."""

LOOKS = 5
"""Tries to see in memory what the log has of a stream that we append to all the time."""

_BEGINNING = Cursor(Epoch(0), Position(0), b"")
AT_A_TIME = 100
"""Streams of a checkpoint that wait for a record are looked at between two pages of the log."""


def _poll(subscription: Subscription, known: Position) -> Batch | None:
    subscription.pass_over(known)
    return subscription.poll()


class TodoList:
    """Follows the log and tells, for each stream it mentions, what the state now says."""

    def __init__(  # noqa: PLR0913 - the composition root's parts
        self,
        *,
        users: Repository[User, UserState],
        log: LogReader,
        readers: Executor,
        checkpoint: TodoCheckpoint,
        tell: Callable[[StreamName, UserState], Open],
        others: Callable[[StreamName], None] = lambda _: None,
    ) -> None:
        """`tell(stream, state)` arranges what is to be done and returns what is open.

        `others(stream)` hears of streams that are no user's.
        """
        self._others = others
        self._users = users
        self._log = log
        self._readers = readers
        self._checkpoint = checkpoint
        self._tell = tell
        self._work: set[StreamName] = set()
        self._records: set[StreamName] = set()
        self._unseen: list[StreamName] = []
        """Of those: the ones of which the checkpoint alone knows."""
        self._subscription: Subscription | None = None
        self._place = _BEGINNING
        """Every stream mentioned up to here has been looked at; as it was read, so that a log which
        went back meanwhile is told from it."""
        self._told: dict[StreamName, int] = {}
        """Versions that were looked at when they were committed, and were not yet read."""
        self._ours = Stretches()
        """Positions of what was looked at when it was committed: it need not be read."""
        self._saved: Position | None = None
        """Where the last checkpoint stands that this process has written."""
        self._moved: set[StreamName] = set()
        """Streams that may stand in another list now than in that."""

    def __len__(self) -> int:
        """How many streams have open work."""
        return len(self._work)

    @property
    def records(self) -> int:
        """How many streams wait for the record of an activity and for nothing else."""
        return len(self._records)

    @property
    def position(self) -> Position:
        """Up to where the log has been followed."""
        return self._place.position

    def streams(self) -> list[StreamName]:
        """Return the streams with open work now."""
        return list(self._work)

    def unrecorded(self) -> list[StreamName]:
        """Return the streams that may have an activity that is not recorded."""
        return [*self._records, *self._work]

    def committed(
        self, stream: StreamName, state: UserState, version: Version, appended: Appended | None
    ) -> None:
        """Look at a state that the log will mention again: what this process has just `appended`.

        None: what it has read, because others had appended.
        """
        self.changed(stream, state)  # first: what could not be looked at is read from the log
        self._told[stream] = version
        if appended is not None:
            self._ours.add(appended.first_position, appended.last_position)

    def changed(self, stream: StreamName, state: UserState) -> None:
        """Look at a state that has just been read."""
        told = self._tell(stream, state)
        if (told == "work") != (stream in self._work):
            self._moved.add(stream)
            self._work ^= {stream}
        if (told == "record") != (stream in self._records):
            self._moved.add(stream)
            self._records ^= {stream}

    async def start(self) -> None:
        """Load the checkpoint and all the work that is open at it. The rest is `follow`'s."""
        listed = self._checkpoint.load()
        if listed.cursor is not None:
            try:
                self._log.verify_cursor(listed.cursor)
            except CursorMismatch as error:
                _log.warning("TODO_REBUILT", reason=str(error))
                listed = Listed(None, [], [])
        self._subscription = Subscription(self._log, after=listed.cursor, page=PAGE)
        self._place = self._subscription.cursor
        self._records.update(listed.records)
        self._unseen = listed.records
        await self._look_at_all(dict.fromkeys(listed.work, 0))

    async def follow(self) -> None:
        """Follow the log until cancelled. `save`, called now and then, keeps the place."""
        while True:
            try:
                more = await self._step()
                more = await self._look_at_unseen() or more
            except CursorMismatch as error:
                _log.warning("TODO_REBUILT", reason=str(error))
                self._subscription = Subscription(self._log, page=PAGE)
                self._place = self._subscription.cursor
                self._told.clear()
                self._ours.clear()
                more = True
            except (EventStoreError, sqlite3.Error) as error:
                _log.warning("BD_THREAD_ERROR", operation="todo", error=type(error).__name__)
                more = False
            if not more:
                await asyncio.sleep(FOLLOW_SECONDS)

    async def save(self) -> None:
        """Write the checkpoint, if anything changed since the last one."""
        if self._subscription is None:
            return
        place, saved = self._place, self._saved
        if not self._moved and place.position == saved and self._checkpoint.is_in_place:
            return
        in_thread = partial(asyncio.get_running_loop().run_in_executor, self._readers)
        moved = {stream: self._list_of(stream) for stream in self._moved}
        self._moved.clear()
        self._saved = None  # whatever goes wrong: then all of it is written the next time
        if saved is None or not await in_thread(self._checkpoint.update, place, moved):
            place, lists = self._place, (set(self._work), set(self._records))
            self._moved.clear()
            await in_thread(self._checkpoint.save, place, *lists)
        self._saved = place.position

    def _list_of(self, stream: StreamName) -> Open:
        if stream in self._work:
            return "work"
        return "record" if stream in self._records else "nothing"

    async def _look_at_unseen(self) -> bool:
        """Look at some that wait for a record since before this start; return if there were any."""
        some = {stream: 0 for stream in self._unseen[:AT_A_TIME] if stream in self._records}
        del self._unseen[:AT_A_TIME]
        await self._look_at_each(some)
        return bool(self._unseen)

    async def _step(self) -> bool:
        """Look at the streams that the next page of the log mentions; return if it was full."""
        if self._subscription is None:
            msg = "start() comes first"
            raise RuntimeError(msg)
        loop = asyncio.get_running_loop()
        told, self._told = self._told, {}
        known = self._ours.end_of(self._place.position)
        batch = await loop.run_in_executor(self._readers, _poll, self._subscription, known)
        reached = self._subscription.cursor
        if batch is None:
            self._place = reached
            return False  # whatever was told before it asked has been read, or need not be
        newest: dict[StreamName, int] = {}
        for event in batch.events:
            if event.stream.startswith(PREFIX):
                newest[event.stream] = event.version
            else:
                self._others(event.stream)
        # What was told meanwhile may be in this page, too.
        news = {s: v for s, v in newest.items() if max(told.pop(s, 0), self._told.get(s, 0)) < v}
        self._told = told | self._told
        await self._look_at_all(news)
        self._place = reached
        return len(batch.events) >= PAGE

    async def _look_at_all(self, versions: Mapping[StreamName, int]) -> None:
        """Look at streams that may have open work: on the list until a look says otherwise.

        So a checkpoint that is taken meanwhile forgets none of them, and one that cannot be read
        now is left to recovery's next look without holding up the others.
        """
        self._work.update(versions)
        self._moved.update(versions)
        await self._look_at_each(versions)

    async def _look_at_each(self, versions: Mapping[StreamName, int]) -> None:
        for stream, version in versions.items():
            try:
                await self.look(stream, version)
            except EventStoreError as error:
                name = type(error).__name__
                _log.error("BD_THREAD_ERROR", operation="todo", stream=stream, error=name)

    async def look(self, stream: StreamName, version: int = 0) -> None:
        """Look at a stream, at `version` or later, and arrange what is to be done."""
        user = self._users.peek(stream)
        for _ in range(LOOKS):
            if user is None or user.version >= version:
                break
            # Another process has appended. What we have on its way meets a conflict then; or it
            # fails, which leaves in memory what was there, and nobody would look again.
            await self._users.landed(stream)
            await self._users.refresh(stream)
            user = self._users.peek(stream)
        if user is None:
            user = await self._users.look(stream)
        self.changed(stream, user.state)
