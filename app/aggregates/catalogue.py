"""Every class of event that this release knows, in whatever stream of a bot's log."""

from __future__ import annotations

from typing import Final

from app.aggregates.cleanup_events import CLEANUP_EVENTS
from app.aggregates.events import USER_EVENTS
from app.aggregates.gateway_events import GATEWAY_EVENTS
from app.aggregates.job_events import JOB_EVENTS
from eventstore.codec import Event

EVENT_CLASSES: Final[tuple[type[Event], ...]] = (
    *USER_EVENTS,
    *GATEWAY_EVENTS,
    *JOB_EVENTS,
    *CLEANUP_EVENTS,
)
