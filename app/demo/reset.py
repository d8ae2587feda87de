"""Time travel in the demo: a person's thread as of just before its reset, and just after."""

from __future__ import annotations

from typing import Final

import msgspec

from app.aggregates.events import USER_EVENTS, ThreadReset, ThreadStarted
from app.projections.user_at import user_at
from app.settings import Settings
from app.stores import open_log
from eventstore.codec import Codec
from eventstore.moments import checked_cut
from eventstore.store import LogReader
from eventstore.types import Position, StreamName

LOST: Final = {"match": "POST /v1/responses", "kind": "conversation_lost", "times": 1}
"""OpenAI forgets the conversation that is asked for next."""

_CODEC: Final = Codec(USER_EVENTS)


class Thread(msgspec.Struct, frozen=True):
    """A thread as of a position of the log."""

    position: Position
    id: str | None
    tokens: int


class Reset(msgspec.Struct, frozen=True):
    """What one reset changed."""

    user: str
    reason: str
    before: Thread
    after: Thread


def last_reset(settings: Settings) -> Reset | None:
    """Return the reset at which the most was left behind; None if no thread was reset."""
    log = open_log(settings)
    try:
        resets = log.read(types=_CODEC.stored_names([ThreadReset]), limit=1000)
        left = {r.position: _CODEC.decode(r.type, r.state) for r in resets}
        told = [
            (event.left_behind, recorded, event)
            for recorded in resets
            if isinstance(event := left[recorded.position], ThreadReset)
        ]
        if not told:
            return None
        _, recorded, event = max(told, key=lambda one: (one[0], one[1].position))
        start = checked_cut(log, _before_append(log, recorded.position))
        return Reset(
            user=recorded.stream.partition("/")[2],
            reason=event.reason,
            before=_thread(log, recorded.stream, start),
            after=_thread(log, recorded.stream, _next_start(log, recorded.stream, start)),
        )
    finally:
        log.close()


def _thread(log: LogReader, stream: StreamName, position: Position) -> Thread:
    thread = user_at(log, stream, position).state.thread
    return Thread(position, thread.id if thread else None, thread.tokens if thread else 0)


def _before_append(log: LogReader, position: Position) -> Position:
    """Return the last position before the append that an event belongs to."""
    here = event = log.event_at(position)
    while event is not None and here is not None and event.append_id == here.append_id:
        position = Position(position - 1)
        event = log.event_at(position) if position else None
    return position


def _next_start(log: LogReader, stream: StreamName, after: Position) -> Position:
    """Return the end of the append in which the next thread was begun, or of the log."""
    started = _CODEC.stored_names([ThreadStarted])
    for event in log.read(after=after, types=started, limit=100_000):
        if event.stream == stream:
            return log.read(after=Position(event.position - 1), limit=1)[-1].position
    return log.head().position
