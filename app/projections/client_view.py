"""The client view of the bot (M003): name, labels, chat, thread, and the *recorded* activity.

Last activity and token count move together, ten minutes after the last event, with
`ActivityRecorded` (A9); the thread moves at once. A count belongs to a thread: whoever gets
another thread, or loses it to a clean-up, stands at 0 until activity is recorded again. Nobody is
ever shown the count of one thread beside the id of another.

Personal columns are sealed: `profile` (name and labels) and `chat` hold what the event held, as
msgpack of `Sealed`. The name that people give themselves travels with their messages: `named_at`
is the position of the newest one that a gateway brought. `clients.open_client` opens all of them
at the edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Final

import msgspec
from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from app.aggregates.events import (
    ActivityRecorded,
    MessageReceived,
    ProfileUpdated,
    ThreadReset,
    ThreadStarted,
    UserRegistered,
)
from app.projections.model import Seen
from app.projections.people import PersonModel, PersonRow, Rows

_pack: Final[Callable[[object], bytes]] = msgspec.msgpack.Encoder().encode
_migrations = Migrations("client_view")


@_migrations()
def table(db: Database) -> None:
    """Make the table, and the view with the names that M003 gives its columns."""
    db.table("client_view").create(
        {
            "user": str,
            "profile": bytes,
            "chat": bytes,
            "named_at": int,
            "thread": str,
            "last_activity": int,
            "tokens": int,
        },
        pk="user",
        not_null={"user", "tokens"},
        strict=True,
    )
    db.execute(
        """
        CREATE VIEW ClientView AS
        SELECT user AS userId, profile AS name, named_at AS userName, profile AS labels,
               chat AS chatId, thread AS threadId, tokens AS threadTokenCount,
               strftime('%Y-%m-%dT%H:%M:%fZ', last_activity / 1e6, 'unixepoch') AS lastActivity
          FROM client_view
        """
    )


class ClientRow(PersonRow, gc=False):
    """One client."""

    profile: bytes | None = None
    chat: bytes | None = None
    named_at: int | None = None
    thread: str | None = None
    last_activity: int | None = None
    """As recorded, in µs; None before the first record."""
    tokens: int = 0
    """As recorded."""


class ClientViewModel(PersonModel[ClientRow]):
    """What the bot knew of its clients."""

    name = "client_view"
    version = 1
    table = "client_view"
    tables = ("client_view", "ClientView")
    migrations = _migrations
    row = ClientRow
    events: ClassVar = (
        UserRegistered,
        ProfileUpdated,
        MessageReceived,
        ThreadStarted,
        ThreadReset,
        ActivityRecorded,
    )
    unread: ClassVar = frozenset((MessageReceived,))

    def fold(self, rows: Rows[ClientRow], batch: Iterable[Seen]) -> None:
        """Change the rows by the events, oldest first."""
        for position, stream, _, kind, event in batch:
            row = rows[stream]
            if kind is MessageReceived:
                row.named_at = position
            elif isinstance(event, ActivityRecorded):
                row.last_activity = event.last_activity
                row.tokens = event.tokens
                row.thread = event.thread
            elif isinstance(event, ThreadStarted):
                if row.thread != event.thread:
                    row.tokens = 0
                row.thread = event.thread
            elif isinstance(event, ThreadReset):
                _reset(row, event)
            elif isinstance(event, UserRegistered):
                row.chat = _pack(event.chat)
            elif isinstance(event, ProfileUpdated):
                row.profile = _pack(event.profile)


def _reset(row: ClientRow, event: ThreadReset) -> None:
    if row.thread == event.thread:
        row.tokens = 0
        if event.reason != "empty":  # an emptied conversation stays linked
            row.thread = None


CLIENT_VIEW = ClientViewModel()
