"""Generations of data keys: a quarter for a person, a month for the bot.

Both count without gaps, in UTC, so that what was sealed long ago can expire by its key alone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from eventstore.types import Micros

BOT: Final = "bot"
"""Owner of what belongs to no single person; its keys last a month instead of a quarter."""

MICROS_PER_DAY: Final = 86_400_000_000
_MONTHS_PER_QUARTER: Final = 3
_MONTHS_PER_YEAR: Final = 12
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def generation_of(owner: str, now: Micros) -> int:
    """Return the generation of `owner`'s key at an instant.

    Persons: a quarter, `year * 4 + quarter` (0…3). `BOT`: a month, `year * 12 + month` (0…11).
    """
    return generation_in(owner, months_at(now // MICROS_PER_DAY))


def generation_in(owner: str, months: int) -> int:
    """Return the generation of `owner`'s key in a month, given as `months_at` counts it."""
    return months if owner == BOT else months // _MONTHS_PER_QUARTER


def months_at(day: int) -> int:
    """Return the month, `year * 12 + month` (0…11), of a day since 1970-01-01."""
    date = _EPOCH + timedelta(days=day)
    return date.year * _MONTHS_PER_YEAR + date.month - 1


def end_of(owner: str, generation: int) -> Micros:
    """Return the first instant at which nothing is sealed any more with a key of `generation`."""
    length = 1 if owner == BOT else _MONTHS_PER_QUARTER
    year, month = divmod((generation + 1) * length, _MONTHS_PER_YEAR)
    days = (datetime(year, month + 1, 1, tzinfo=UTC) - _EPOCH).days
    return Micros(days * MICROS_PER_DAY)


def label_of(owner: str, generation: int) -> str:
    """Return a generation as people write it: `bot/2026-08`, `…/2026-Q3`."""
    if owner == BOT:
        year, month = divmod(generation, _MONTHS_PER_YEAR)
        return f"{owner}/{year}-{month + 1:02}"
    year, quarter = divmod(generation, _MONTHS_PER_YEAR // _MONTHS_PER_QUARTER)
    return f"{owner}/{year}-Q{quarter + 1}"
