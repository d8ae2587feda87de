"""One user as of a position of the log: that user's stream, replayed up to there."""

from __future__ import annotations

from typing import Final

from app.aggregates.events import USER_EVENTS
from app.aggregates.user import User
from app.aggregates.user_state import BLANK, STATE_SHAPE, UserState, evolve, unpack
from eventstore.codec import Codec
from eventstore.errors import UnknownEventType
from eventstore.store import LogReader
from eventstore.types import Position, StreamName, Version

_PAGE: Final = 1000
_CODEC: Final = Codec(USER_EVENTS)


def user_at(log: LogReader, stream: StreamName, position: Position | None = None) -> User:
    """Return the user as of `position`, or of the end of the log; blank before the first event.

    The newest snapshot is the start if it is not of later. A user of whom a newer release has
    written by then is read-only.
    """
    state, version = _snapshot(log, stream, position)
    read_only = False
    while page := log.read_stream(stream, after=version, limit=_PAGE):
        for recorded in page:
            if position is not None and recorded.position > position:
                return User(stream, state, version, read_only=read_only)
            version = recorded.version
            try:
                event = _CODEC.decode(recorded.type, recorded.state)
            except UnknownEventType:
                read_only = True
            else:
                state = evolve(state, event, version, recorded.recorded_at)
    return User(stream, state, version, read_only=read_only)


def _snapshot(
    log: LogReader, stream: StreamName, position: Position | None
) -> tuple[UserState, Version]:
    snapshot = log.snapshot(stream)
    if snapshot is None or snapshot.shape != STATE_SHAPE:
        return BLANK, Version(0)
    if position is not None:
        before = Version(snapshot.version - 1)
        last = log.read_stream(stream, after=before, up_to=snapshot.version)
        if not last or last[0].position > position:
            return BLANK, Version(0)
    return unpack(snapshot.state), snapshot.version
