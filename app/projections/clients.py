"""What can be asked of the client view (M003), sealed, and how it is opened at the edge."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

import msgspec

from app.aggregates.events import Content, MessageReceived, Profile
from app.projections.asking import asking
from app.projections.people import PREFIX
from app.projections.views import Views
from eventstore.codec import Codec
from eventstore.sealing import Sealed, Sealer
from eventstore.store import LogReader
from eventstore.types import Position, Recorded, StreamName, Version

_COLUMNS: Final = "user, profile, chat, named_at, thread, last_activity, tokens"
_WIDTH: Final = 7
NAMED_WITHIN: Final = 100
"""Of so many last events of a person, the messages are looked at for what they call themselves."""
# An import moves the recorded activity alone: what is live is the later of both.
_PAGE: Final = f"""
    SELECT {", ".join(f"c.{name}" for name in _COLUMNS.split(", "))},
           c.last_activity, m.last_activity, coalesce(t.tokens, 0)
      FROM client_view c
      LEFT JOIN thread_map m USING (user)
      LEFT JOIN token_totals t USING (user)
     WHERE c.user > ? ORDER BY c.user LIMIT ?
"""  # noqa: S608 - our own names
_RECORDED: Final = (
    "as recorded: last activity and token count move together, 10 minutes "
    "(HILO_ACTIVITY_SECONDS) after the last event; a new thread stands at 0 until then"
)
_sealed: Final = msgspec.msgpack.Decoder(Sealed).decode
_messages: Final = Codec([MessageReceived])


class ClientView(msgspec.Struct, frozen=True):
    """One client, personal columns sealed."""

    user: str
    """The pseudonym."""
    profile: Sealed[Profile] | None
    chat: Sealed[str] | None
    named_at: Position | None
    """The newest message: it carries the name that the person goes by."""
    thread_id: str | None
    last_activity: int | None
    """As recorded with `thread_token_count`, in µs."""
    thread_token_count: int


class Live(msgspec.Struct, frozen=True, rename="camel"):
    """What the log says of a client at that position, recorded or not."""

    last_activity: int | None
    thread_token_count: int
    """On the current conversation."""


class Clients(msgspec.Struct, frozen=True):
    """Some clients, as of a position of the log."""

    position: Position
    clients: list[ClientView]
    live: list[Live]
    """Theirs, in the same order."""


class Client(msgspec.Struct, frozen=True, rename="camel"):
    """One client in clear, with the names of M003. Personal data: for those who may see it."""

    user_id: str
    name: str | None
    user_name: str | None
    labels: tuple[str, ...]
    chat_id: str | None
    last_activity: Annotated[int | None, msgspec.Meta(description=_RECORDED)]
    thread_id: str | None
    thread_token_count: Annotated[int, msgspec.Meta(description=_RECORDED)]


def client(views: Views, pseudonym: str) -> ClientView | None:
    """Return one client; None if the read model knows nobody of that name."""
    query = f"SELECT {_COLUMNS} FROM client_view WHERE user = ?"  # noqa: S608 - our own names
    with asking(views, "client_view") as (db, _):
        row = db.execute(query, (pseudonym,)).fetchone()
    return None if row is None else _view(row)


def clients(views: Views, *, after: str = "", limit: int = 100) -> Clients:
    """Return clients in the order of their pseudonyms, those after `after`."""
    with asking(views, "client_view", "thread_map", "token_totals") as (db, position):
        rows = db.execute(_PAGE, (after, limit)).fetchall()
    return Clients(
        position,
        [_view(row[:_WIDTH]) for row in rows],
        [Live(max(filter(None, row[_WIDTH:-1]), default=None), row[-1]) for row in rows],
    )


def clients_of(views: Views, pseudonyms: Sequence[str]) -> dict[str, ClientView]:
    """Return those of some people whom the read model knows, by pseudonym."""
    query = f"SELECT {_COLUMNS} FROM client_view WHERE user IN (SELECT value FROM json_each(?))"  # noqa: S608 - our own names
    with asking(views, "client_view") as (db, _):
        rows = db.execute(query, (msgspec.json.encode(pseudonyms).decode(),)).fetchall()
    return {row[0]: _view(row) for row in rows}


def every(db: sqlite3.Connection) -> Iterator[ClientView]:
    """Yield every client of a table `client_view`, in the order of their pseudonyms."""
    query = f"SELECT {_COLUMNS} FROM client_view ORDER BY user"  # noqa: S608 - our own names
    return map(_view, db.execute(query))


def open_client(view: ClientView, log: LogReader, sealer: Sealer) -> Client:
    """Open what is sealed. Raises `Forgotten`, `KeyMissing` or `CannotUnseal`."""
    stream = StreamName(PREFIX + view.user)
    profile = chat = user_name = None
    if view.profile is not None:
        profile = sealer.open(view.user, stream, "profile", view.profile, Profile)
    if view.chat is not None:
        chat = sealer.open(view.user, stream, "chat", view.chat, str)
    if view.named_at is not None:
        user_name = name_said_at(view.named_at, log, sealer)
    if profile is not None:
        user_name = user_name or profile.user_name or None
    return Client(
        user_id=view.user,
        name=profile.name if profile else None,
        user_name=user_name,
        labels=profile.labels if profile else (),
        chat_id=chat,
        last_activity=view.last_activity,
        thread_id=view.thread_id,
        thread_token_count=view.thread_token_count,
    )


def name_said_at(position: Position, log: LogReader, sealer: Sealer) -> str | None:
    """Return what a person called themselves in the message at a position, if there is one.

    Raises `Forgotten`, `KeyMissing` or `CannotUnseal`.
    """
    recorded = log.event_at(position)
    return None if recorded is None else _name_in(recorded, sealer)


def last_name_said(
    stream: StreamName, up_to: Version, log: LogReader, sealer: Sealer
) -> str | None:
    """Return what a person called themselves in the newest message up to a version that says it.

    Of the last `NAMED_WITHIN` events: None if none of them says it. Raises as `name_said_at`.
    """
    after = Version(max(0, up_to - NAMED_WITHIN))
    names = (
        _name_in(recorded, sealer)
        for recorded in reversed(log.read_stream(stream, after=after, up_to=up_to))
    )
    return next(filter(None, names), None)


def _name_in(recorded: Recorded, sealer: Sealer) -> str | None:
    if not _messages.knows(recorded.type):
        return None
    event = _messages.decode(recorded.type, recorded.state)
    assert isinstance(event, MessageReceived)  # noqa: S101 - the codec knows no other
    owner = recorded.stream.removeprefix(PREFIX)
    return sealer.open(owner, recorded.stream, "content", event.content, Content).name or None


def _view(row: tuple[Any, ...]) -> ClientView:
    user, profile, chat, *rest = row
    return ClientView(
        user,
        None if profile is None else _sealed(profile),
        None if chat is None else _sealed(chat),
        *rest,
    )
