"""A user's timeline, read from the stream itself: what happened, and what belongs together.

No table: the stream is the timeline. Which event belongs to which causal chain is `weaving`'s to
say. Personal data stays sealed and is opened at the edge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from app.aggregates import events as e
from app.projections.weaving import Weaver
from eventstore.codec import Codec, Event
from eventstore.errors import CorruptEvent, UnknownEventType
from eventstore.sealing import Sealed
from eventstore.store import LogReader
from eventstore.types import Micros, Position, Recorded, StreamName, Version

PAGE: Final = 1000
_CODEC: Final = Codec(e.USER_EVENTS)
_COMMON: Final = frozenset(Event.__struct_fields__)
_Read = tuple[Recorded, Event | None]


class Moment(msgspec.Struct, frozen=True):
    """One event of a timeline."""

    position: Position
    version: Version
    at: Micros
    """When it was recorded, by the log's clock."""
    type: str
    chain: str
    """Shared by all that belongs together: a run's id, a clean-up's, or `v<version>`."""
    caused_by: Version | None
    """The event of this stream that it follows from, if it says so or names its message."""
    sender_at: int | None
    """The sender's own time, in µs."""
    facts: dict[str, Any]
    """The fields that are in clear; none of an event of a newer release."""
    sealed: dict[str, Sealed[Any]]
    """The fields that hold personal data."""


class Chain(msgspec.Struct, frozen=True):
    """What belongs together, oldest first."""

    id: str
    moments: list[Moment]


def timeline(log: LogReader, stream: StreamName, *, up_to: Position | None = None) -> list[Moment]:
    """Return what happened to a user, oldest first; nothing if there is no such stream.

    `up_to`: as of that position of the log. The whole stream is read: what a message led to is
    known from what came after it. An event that this release cannot read is a moment without
    facts, in a chain of its own.
    """
    weaver = Weaver()
    read = list(_events(log, stream, up_to))
    causes = [weaver.take(recorded.version, event) for recorded, event in read]
    return [
        _moment(recorded, event, weaver.chain_of(recorded.version), cause)
        for (recorded, event), cause in zip(read, causes, strict=True)
    ]


def chains(moments: Iterable[Moment]) -> list[Chain]:
    """Return moments as chains, in the order in which the chains began."""
    found: dict[str, list[Moment]] = {}
    for moment in moments:
        found.setdefault(moment.chain, []).append(moment)
    return [Chain(name, members) for name, members in found.items()]


def _events(log: LogReader, stream: StreamName, up_to: Position | None) -> Iterator[_Read]:
    after = Version(0)
    while page := log.read_stream(stream, after=after, limit=PAGE):
        for recorded in page:
            if up_to is not None and recorded.position > up_to:
                return
            yield recorded, _decoded(recorded)
        after = page[-1].version


def _decoded(recorded: Recorded) -> Event | None:
    try:
        return _CODEC.decode(recorded.type, recorded.state)
    except (UnknownEventType, CorruptEvent):
        return None


def _moment(recorded: Recorded, event: Event | None, chain: str, cause: int | None) -> Moment:
    names = () if event is None else event.__struct_fields__
    fields = {name: getattr(event, name) for name in names if name not in _COMMON}
    return Moment(
        position=recorded.position,
        version=recorded.version,
        at=recorded.recorded_at,
        type=recorded.type,
        chain=chain,
        caused_by=None if cause is None else Version(cause),
        sender_at=None if event is None else event.at,
        facts={k: v for k, v in fields.items() if not isinstance(v, Sealed)},
        sealed={k: v for k, v in fields.items() if isinstance(v, Sealed)},
    )
