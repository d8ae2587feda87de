"""Instants as text: ISO 8601, UTC, to the microsecond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UTC: Final = len("+00:00")


def iso(micros: int) -> str:
    """Return an instant (µs since 1970) as ISO 8601 with microseconds and Z."""
    moment = _EPOCH + timedelta(microseconds=micros)  # strftime takes four times as long
    return moment.isoformat(timespec="microseconds")[:-_UTC] + "Z"
