"""The thread map: for each user the conversation at OpenAI, and when they were last active.

Instants are µs of the log's time, except that a conversation which was begun elsewhere (an
import) keeps the time that its event names. Messages of both directions move `last_activity`, and
what an import knows of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from app.aggregates.events import (
    ActivityRecorded,
    HumanMessageSent,
    MessageImported,
    MessageReceived,
    MessageSent,
    ThreadReset,
    ThreadStarted,
    UserRegistered,
)
from app.projections.model import Seen
from app.projections.people import PersonModel, PersonRow, Rows

_migrations = Migrations("thread_map")


@_migrations()
def table(db: Database) -> None:
    """Make the table."""
    db.table("thread_map").create(
        {
            "user": str,
            "thread": str,
            "started_at": int,
            "reset_reason": str,
            "registered_at": int,
            "last_activity": int,
            "messages_in": int,
            "messages_out": int,
        },
        pk="user",
        not_null={"user", "messages_in", "messages_out"},
        strict=True,
    )


class ThreadRow(PersonRow, gc=False):
    """One user's conversation."""

    thread: str | None = None
    """None: no conversation; the next turn starts one."""
    started_at: int | None = None
    reset_reason: str | None = None
    """Why the last conversation was left, or its count set to 0."""
    registered_at: int | None = None
    last_activity: int | None = None
    messages_in: int = 0
    """Everything the person sent, what is never answered included."""
    messages_out: int = 0
    """Parts of the bot's replies that the gateway accepted."""


class ThreadMap(PersonModel[ThreadRow]):
    """Who talks in which conversation."""

    name = "thread_map"
    version = 2
    table = "thread_map"
    tables = ("thread_map",)
    migrations = _migrations
    row = ThreadRow
    events: ClassVar = (
        UserRegistered,
        MessageReceived,
        MessageSent,
        HumanMessageSent,
        MessageImported,
        ThreadStarted,
        ThreadReset,
        ActivityRecorded,
    )
    unread: ClassVar = frozenset((UserRegistered, MessageReceived, MessageSent, HumanMessageSent))

    def fold(self, rows: Rows[ThreadRow], batch: Iterable[Seen]) -> None:
        """Change the rows by the events, oldest first."""
        for _, stream, at, kind, event in batch:
            row = rows[stream]
            if kind is MessageReceived:
                row.messages_in += 1
                row.last_activity = at
            elif kind is MessageSent:
                row.messages_out += 1
                row.last_activity = at
            elif kind is HumanMessageSent:
                row.last_activity = at
            elif kind is UserRegistered:
                row.registered_at = at
            elif isinstance(event, MessageImported):
                row.last_activity = max(row.last_activity or 0, event.at or at)
            elif isinstance(event, ActivityRecorded):
                _active(row, event)
            elif isinstance(event, ThreadStarted):
                row.thread = event.thread
                row.started_at = event.at or at
            elif isinstance(event, ThreadReset):
                _reset(row, event)


def _active(row: ThreadRow, event: ActivityRecorded) -> None:
    if event.at is not None:  # imported: what Hilo saw itself has moved the row already
        row.last_activity = max(row.last_activity or 0, event.last_activity)


def _reset(row: ThreadRow, event: ThreadReset) -> None:
    row.reset_reason = event.reason
    if row.thread == event.thread and event.reason != "empty":  # an emptied one stays linked
        row.thread = None
        row.started_at = None


THREAD_MAP = ThreadMap()
