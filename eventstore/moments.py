"""A moment of a log: a position, or an instant, at which its past is asked for.

What is answered about the past never changes. So a moment lies between two appends, never inside
one, and an instant is a moment only once something newer is committed: until then an append of
that very instant may still be on its way.
"""

from __future__ import annotations

from eventstore.errors import CutInsideAppend, NotYet
from eventstore.store import LogReader
from eventstore.types import MAX_EVENTS_PER_APPEND, Micros, Position, Recorded


def position_at(log: LogReader, instant: Micros) -> Position:
    """Return the last position recorded at or before `instant`; 0 before the first.

    Raises `NotYet` if the log's newest event is older than `instant`: wait for the next append, or
    ask about the newest.
    """
    head = log.head()
    if instant > head.recorded_at:
        raise NotYet(instant, head)
    return log.position_at(instant)


def checked_cut(log: LogReader, position: Position) -> Position:
    """Return a position between two appends as it is.

    Raises `CutInsideAppend`, which names both neighbours, inside one, and `NotYet` past the end.
    """
    head = log.head()
    if position > head.position:
        raise NotYet(position, head)
    if position == 0:
        return position
    last, following = log.event_at(position), log.event_at(Position(position + 1))
    if last is None or following is None or last.append_id != following.append_id:
        return position
    together = _append_around(log, last)
    raise CutInsideAppend(position, together[0].position, together[-1].position)


def _append_around(log: LogReader, event: Recorded) -> list[Recorded]:
    """Return the events that were appended together with `event`, itself included."""
    around = log.read(
        after=Position(max(0, event.position - MAX_EVENTS_PER_APPEND)),
        up_to=Position(event.position + MAX_EVENTS_PER_APPEND),
        limit=2 * MAX_EVENTS_PER_APPEND,
    )
    return [one for one in around if one.append_id == event.append_id]
