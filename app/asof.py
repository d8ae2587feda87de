"""`as_of`: the moment of the log that a read is about, as people and programs write it.

A position (`as_of=1234`), or an instant with its zone (`2026-11-20T14:30:00-05:00`, `…Z`). Without
a zone nobody can say which instant is meant, so such a time is refused. `now`, or nothing, is the
end of the log at the time of asking.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from eventstore.moments import checked_cut, position_at
from eventstore.store import LogReader
from eventstore.types import Micros, Position

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_DIGITS: Final = 18
_LATEST: Final = 7_258_118_400_000_000  # 2200-01-01


class UnclearMoment(ValueError):
    """A moment that cannot be understood; the message says how to write one."""


def parse(text: str) -> Position | datetime:
    """Return what `text` means. Raises `UnclearMoment`."""
    word = text.strip()
    if word.isascii() and word.isdigit() and len(word) <= _MAX_DIGITS:
        return Position(int(word))
    try:
        instant = datetime.fromisoformat(word)
    except ValueError:
        msg = f"{text!r} is neither a position nor a time: write 1234, or 2026-11-20T14:30:00-05:00"
        raise UnclearMoment(msg) from None
    if instant.tzinfo is None:
        word = word if ":" in word else f"{instant:%Y-%m-%dT%H:%M:%S}"
        msg = (
            f"{text!r} has no zone, so it could be any of two dozen instants: add the offset, "
            f"as {word}Z for UTC or {word}-05:00 (in a URL the + of an offset is written %2B)"
        )
        raise UnclearMoment(msg)
    try:
        passed = micros(instant)
    except OverflowError:
        passed = Micros(-1)
    if not 0 <= passed < _LATEST:
        msg = f"{text!r} is before 1970 or after 2200: no log reaches so far"
        raise UnclearMoment(msg)
    return instant


def resolve(log: LogReader, moment: Position | datetime) -> Position:
    """Return the position that a moment means in this log, between two appends.

    Raises `CutInsideAppend`, or `NotYet` if it is not in the past of the log yet.
    """
    if isinstance(moment, datetime):
        return position_at(log, micros(moment))
    return checked_cut(log, moment)


def as_of(log: LogReader, text: str | None) -> Position:
    """Return the position that is asked for; the end of the log if nothing, or `now`, is."""
    if text is None or text.strip() in {"", "now"}:
        return log.head().position
    return resolve(log, parse(text))


def micros(instant: datetime) -> Micros:
    """Return an instant as µs since 1970, exactly."""
    return Micros((instant - _EPOCH) // timedelta(microseconds=1))
