"""Which jobs the fleet has, and when each is due."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.jobs.slots import Daily, Times

BOT_KEYS: Final = "bot_keys"
NODE_ROWS: Final = "node_rows"


def calendar(zone: str) -> Mapping[str, Times]:
    """Return the schedule of each job by its name; daily ones in the time zone `zone`."""
    return {BOT_KEYS: Daily(3, 0, zone), NODE_ROWS: Daily(3, 30, zone)}
