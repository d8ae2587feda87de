"""When a job is due: instants that every node computes alike, from the schedule alone.

APScheduler's triggers do the calendar. Local times are safe when clocks change: a time that does
not exist is an hour later, and one that comes twice counts once.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from eventstore.types import Micros

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO: Final = timedelta(microseconds=1)
_BACK: Final = (timedelta(minutes=2), timedelta(hours=2), timedelta(days=2), timedelta(days=400))


class Times(Protocol):
    """A schedule: an endless row of instants."""

    def next(self, now: datetime) -> datetime:
        """Return the first instant at or after `now`."""


class Daily:
    """Every day at a local time, in a zone such as `Europe/Madrid`."""

    def __init__(self, hour: int, minute: int, zone: str) -> None:
        """Raises `ZoneInfoNotFoundError` or ValueError for what does not exist."""
        self._trigger = CronTrigger(hour=hour, minute=minute, timezone=ZoneInfo(zone))
        self._says = f"daily at {hour:02}:{minute:02} {zone}"

    def next(self, now: datetime) -> datetime:
        """Return the first instant at or after `now`."""
        found: datetime = self._trigger.get_next_fire_time(None, now)
        while found.fold:  # the second half past two of the night in which clocks go back
            found = self._trigger.get_next_fire_time(None, found.astimezone(UTC) + _MICRO)
        return found.astimezone(UTC)

    def __str__(self) -> str:
        return self._says


class Every:
    """Every so many seconds, counted from 1970: the same instants on every node."""

    def __init__(self, seconds: int) -> None:
        self._trigger = IntervalTrigger(seconds=seconds, start_date=_EPOCH, timezone=UTC)
        self._says = f"every {seconds} s"

    def next(self, now: datetime) -> datetime:
        """Return the first instant at or after `now`."""
        found: datetime = self._trigger.get_next_fire_time(None, now)
        return found

    def __str__(self) -> str:
        return self._says


def next_slot(times: Times, after: Micros) -> Micros:
    """Return the first slot after an instant."""
    return _micros(times.next(_moment(after) + _MICRO))


def latest_slot(times: Times, now: Micros) -> Micros | None:
    """Return the last slot at or before an instant; None if there was none for a year."""
    moment = _moment(now)
    for back in _BACK:  # a short look back finds a frequent one, and never takes many steps
        found = None
        at = times.next(moment - back)
        while at <= moment:
            found = at
            at = times.next(at + _MICRO)
        if found is not None:
            return _micros(found)
    return None


def _moment(at: Micros) -> datetime:
    return _EPOCH + timedelta(microseconds=at)


def _micros(at: datetime) -> Micros:
    return Micros((at - _EPOCH) // _MICRO)
