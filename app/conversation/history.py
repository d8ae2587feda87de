"""What was said with a user, read from the log to fill a new conversation at the provider."""

from __future__ import annotations

from typing import Final

from app.aggregates.events import (
    Content,
    HumanMessageSent,
    MessageDeleted,
    MessageEdited,
    MessageImported,
    MessageReceived,
    Reply,
    RunCompleted,
)
from app.aggregates.user import User
from app.conversation.kinds import USER_CODEC
from app.conversation.ports import Role, Said
from app.conversation.texts import say
from eventstore.sealing import Sealed, Sealer
from eventstore.store import LogReader
from eventstore.types import StreamName, Version

MESSAGES: Final = 60
"""So many messages are carried over; what a model needs to go on is in the last few."""

DEPTH: Final = 2000
"""So far back (events) they are looked for."""

_SAID: Final = frozenset(
    USER_CODEC.stored_names(
        (
            MessageReceived,
            MessageEdited,
            MessageDeleted,
            MessageImported,
            HumanMessageSent,
            RunCompleted,
        )
    )
)


def read_history(log: LogReader, sealer: Sealer, user: User) -> tuple[Said, ...]:
    """Return what was said before the messages that wait, edits applied, oldest first.

    By the senders' own times, which for imported messages are far before the log's. Blocking:
    runs on a reader thread.
    """
    stream = user.stream
    pending = user.state.pending
    end = pending[0].version - 1 if pending else user.version
    start = Version(max(0, end - DEPTH))
    said: dict[bytes, tuple[int, int, Said]] = {}
    for recorded in log.read_stream(stream, after=start, up_to=Version(end)):
        if recorded.type not in _SAID:
            continue
        order = (recorded.recorded_at, int(recorded.version))
        match USER_CODEC.decode(recorded.type, recorded.state):
            case MessageReceived(ref=ref, content=sealed, kind=kind, at=at):
                text = say(kind, _open(sealer, stream, sealed))
                said[ref] = (at or order[0], order[1], Said("user", text))
            case MessageEdited(ref=ref, content=sealed) if ref in said:
                when, version, _ = said[ref]
                said[ref] = (when, version, Said("user", _open(sealer, stream, sealed).text))
            case MessageDeleted(ref=ref):
                said.pop(ref, None)
            case HumanMessageSent(ref=ref, content=sealed, at=at):
                text = _open(sealer, stream, sealed).text
                said[ref] = (at or order[0], order[1], Said("assistant", text))
            case MessageImported(ref=ref, content=sealed, at=at, kind=kind) as old:
                if kind != "system":
                    text = say(kind, _open(sealer, stream, sealed))
                    role: Role = "user" if old.sender == "person" else "assistant"
                    said[ref] = (at or order[0], order[1], Said(role, text))
            case RunCompleted(run=run, reply=sealed):
                parts = sealer.open(_owner(stream), stream, "reply", sealed, Reply).parts
                said[run.encode()] = (*order, Said("assistant", "\n".join(parts)))
    ordered = [row[2] for row in sorted(said.values(), key=lambda row: row[:2])]
    return tuple(one for one in ordered if one.text.strip())[-MESSAGES:]


def _open(sealer: Sealer, stream: StreamName, sealed: Sealed[Content]) -> Content:
    return sealer.open(_owner(stream), stream, "content", sealed, Content)


def _owner(stream: StreamName) -> str:
    return stream.partition("/")[2]
