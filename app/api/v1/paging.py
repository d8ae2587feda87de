"""What a page of events is asked for, and how it is found: in bounded time, whatever the filters.

Pages are found by position, or in one user's stream by version. What neither of them orders (a
type, a run) is looked for through a stretch of the log, and where the stretch ends the page does.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from app.api.problem import Problem, ProblemError
from app.api.v1.reading import BotReads, user_stream
from eventstore.codec import Codec, correlation_mark
from eventstore.store import LogReader
from eventstore.types import Position, Recorded, StreamName, Version

SEARCHED: Final = 25_000
"""Positions that one request looks through for events of some types: a few milliseconds."""

RUN_SEARCHED: Final = 10_000
"""Positions that one request looks through for a run, in the states themselves: as long."""

STREAM_SEARCHED: Final = 5_000
"""Events of one user that one request looks through."""

_READ: Final = 1000


class Question(msgspec.Struct, frozen=True):
    """What a page is asked for; its digest ties cursors to it."""

    bot: str
    user: str | None
    types: tuple[str, ...]
    correlation: str | None
    after: int
    up_to: int

    def digest(self) -> bytes:
        """Return what tells this question from others."""
        return hashlib.blake2b(msgspec.msgpack.encode(self), digest_size=6).digest()

    @property
    def is_picky(self) -> bool:
        """Whether it leaves out events that lie between others of the answer."""
        return bool(self.types) or self.correlation is not None

    def takes(self, event: Recorded, codec: Codec) -> bool:
        """Tell whether an event belongs into the answer; its user is not looked at."""
        if self.types and event.type not in self.types:
            return False
        if self.correlation is None:
            return True
        marked = correlation_mark(self.correlation) in event.state
        return marked and _correlation(event, codec) == self.correlation


def found(
    bot: BotReads, question: Question, start: Position, end: Position, limit: int
) -> tuple[list[Recorded], Position]:
    """Return about `limit` events after `start`, and how far the log was looked through.

    No append is split, and there are fewer than `limit` if the stretch held no more.
    """
    if question.user is not None:
        return _in_stream(bot, question, start, end, limit)
    if question.correlation is not None:
        return _of_run(bot, question, start, end, limit)
    log = bot.log
    if question.types:
        end = _stretch(log, start, SEARCHED, end)
    events = log.read(after=start, up_to=end, limit=limit, types=question.types or None)
    return events, events[-1].position if len(events) >= limit else end


def _of_run(
    bot: BotReads, question: Question, start: Position, end: Position, limit: int
) -> tuple[list[Recorded], Position]:
    """Look through a stretch of the whole log, which has no index by run."""
    log, codec = bot.log, bot.codec
    stretch = _stretch(log, start, RUN_SEARCHED, end)
    mark = correlation_mark(question.correlation or "")
    events: list[Recorded] = []
    while start < stretch and len(events) < limit:
        rows = log.read_holding(mark, after=start, up_to=stretch, limit=_READ)
        events += [event for event in rows if question.takes(event, codec)]
        start = rows[-1].position if len(rows) >= _READ else stretch
    return events, start


def _stretch(log: LogReader, start: Position, most: int, end: Position) -> Position:
    """Return how far one request looks: about `most` positions, to the end of an append."""
    if end - start <= most:
        return end
    return log.read(after=Position(start + most - 1), up_to=end, limit=1)[-1].position


def _in_stream(
    bot: BotReads, question: Question, start: Position, end: Position, limit: int
) -> tuple[list[Recorded], Position]:
    log, codec = bot.log, bot.codec
    stream = user_stream(question.user or "")
    events: list[Recorded] = []
    version = _version_at(log, stream, start)
    last = version + STREAM_SEARCHED
    at_once = _READ if question.is_picky else min(_READ, limit + 1)
    before: Recorded | None = None
    while rows := log.read_stream(stream, after=version, limit=at_once):
        for event in rows:
            if event.position > end:
                return events, end
            if before is not None and event.append_id != before.append_id:
                enough = len(events) >= limit or before.version >= last
                if enough:
                    return events, before.position
            if event.position > start and question.takes(event, codec):
                events.append(event)
            before = event
        version = rows[-1].version
    return events, end


def _version_at(log: LogReader, stream: StreamName, position: Position) -> Version:
    """Return the stream's version as of a position: a binary search over its own events."""
    low, high = 0, int(log.stream_version(stream))
    while low < high:
        middle = (low + high + 1) // 2
        (event,) = log.read_stream(stream, after=Version(middle - 1), up_to=Version(middle))
        if event.position <= position:
            low = middle
        else:
            high = middle - 1
    return Version(low)


def stored_types(codec: Codec, names: list[str] | None) -> tuple[str, ...]:
    """Return the stored names, old schemas included, of types; none for none."""
    known = {cls.type_name or cls.__name__: cls for cls in codec.classes}
    stored: list[str] = []
    for name in names or ():
        if name in known:
            stored += codec.stored_names([known[name]])
        elif codec.knows(name):
            stored.append(name)
        else:
            raise ProblemError(_no_type(sorted(known)))
    return tuple(stored)


def _correlation(event: Recorded, codec: Codec) -> str | None:
    try:
        return codec.decode(event.type, event.state).cor
    except Exception:  # noqa: BLE001 - of a newer release: it belongs to nothing that we know
        return None


def _no_type(known: list[str]) -> Problem:
    return Problem(
        type="/problems/invalid-request",
        title="There is no such event type",
        status=422,
        detail=f"There are: {', '.join(known)}.",
    )
