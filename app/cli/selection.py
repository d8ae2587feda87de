"""Which events of a log a command is about: read page by page, in constant memory."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Final

from app.cli.failures import WrongUsage
from app.exports.selection import PAGE, Selection, pages
from app.installation import Installation
from eventstore.codec import Codec
from eventstore.errors import CutInsideAppend
from eventstore.moments import checked_cut
from eventstore.store import LogReader
from eventstore.types import Position, Recorded, Version

_START: Final = Position(0)

__all__ = [
    "PAGE",
    "Selection",
    "newest",
    "pages",
    "refuse_beyond",
    "refuse_cut",
    "select",
    "stored_types",
]


def select(here: Installation, types: Sequence[str] | None, user: str | None) -> Selection:
    """Return the filter that the options `--type` and `--user` ask for."""
    return Selection(
        stored_types(here.codec, here.log, types) if types else None,
        here.stream_of(user) if user is not None else None,
    )


def stored_types(codec: Codec, log: LogReader, names: Sequence[str]) -> tuple[str, ...]:
    """Return the stored names, old schemas included, of event types as people write them.

    Raises `WrongUsage` for a type that neither this release nor the log knows.
    """
    known = {cls.type_name or cls.__name__: cls for cls in codec.classes}
    stored: list[str] = []
    for name in names:
        if name in known:
            stored += codec.stored_names([known[name]])
        elif codec.knows(name) or name in log.count_by_type():
            stored.append(name)
        else:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else "hilo log stats lists those in the log"
            msg = f"there is no event type {name!r}: {hint}"
            raise WrongUsage(msg)
    return tuple(stored)


def newest(log: LogReader, wanted: Selection, *, limit: int, up_to: Position) -> list[Recorded]:
    """Return the last `limit` events at or before a position, oldest first."""
    if limit == 0:
        return []
    found: list[Recorded] = []
    end: int = up_to if wanted.stream is None else log.stream_version(wanted.stream)
    span = max(limit, PAGE)
    while end > 0 and len(found) < limit:
        start = max(0, end - span)
        found = _window(log, wanted, start, end, up_to)[-limit:] + found
        end, span = start, span * 2
    return found[-limit:]


def _window(
    log: LogReader, wanted: Selection, start: int, end: int, up_to: Position
) -> list[Recorded]:
    """Return what is selected in (start, end]: versions of the one stream, or else positions."""
    if wanted.stream is not None:
        events = log.read_stream(wanted.stream, after=Version(start), up_to=Version(end))
        return [e for e in events if e.position <= up_to and wanted.takes(e)]
    return [
        event
        for _, page in pages(log, wanted, after=Position(start), up_to=Position(end))
        for event in page
    ]


def refuse_beyond(log: LogReader, position: int | None, option: str) -> Position:
    """Return the position that an option gives, 0 for none. Raises `WrongUsage` past the end."""
    head = log.head().position
    if position is not None and position > head:
        msg = f"{option} {position}: the log ends at {head}"
        raise WrongUsage(msg)
    return Position(position or 0)


def refuse_cut(log: LogReader, position: Position, option: str) -> None:
    """Raise `WrongUsage` if a position is inside an append: its events are never separated."""
    try:
        checked_cut(log, position)
    except CutInsideAppend as error:
        msg = f"{option} {error}"
        raise WrongUsage(msg) from None
