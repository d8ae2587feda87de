"""How long turns wait, how often they are tried, and when somebody else takes over: in µs."""

from __future__ import annotations

import msgspec

from app.aggregates.answers import BufferPolicy
from app.aggregates.user_thread import ACTIVITY_DELAY
from app.settings import Settings

SECOND = 1_000_000


def micros(seconds: float) -> int:
    """Return whole microseconds."""
    return int(seconds * SECOND)


class TurnPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a turn, read once."""

    buffer: BufferPolicy
    attempts: int
    thread_age: int
    busy: int
    send: int
    """From `DeliveryStarted` to its deadline: longer than the send's own time-out."""
    send_timeout: int
    """The send's own time-out: one that begins later than that before the deadline is too late."""
    margin: int
    orphan_start: float
    orphan_every: float
    recovery_seconds: float
    resend_uncertain: bool
    apology: str
    activity: int = ACTIVITY_DELAY
    """From the last event to its record in the client view."""

    @classmethod
    def of(cls, settings: Settings) -> TurnPolicy:
        """Return the policy that the settings describe."""
        return cls(
            buffer=BufferPolicy(
                quiet=micros(settings.quiet_seconds),
                longest=micros(settings.longest_seconds),
                most=settings.most_messages,
            ),
            attempts=settings.attempts,
            thread_age=micros(settings.thread_days * 86_400),
            busy=micros(settings.busy_seconds),
            send=micros(settings.send_seconds * 1.5),
            send_timeout=micros(settings.send_seconds),
            margin=micros(settings.delivery_margin_seconds),
            orphan_start=settings.orphan_start_seconds,
            orphan_every=settings.orphan_every_seconds,
            recovery_seconds=settings.run_seconds,
            resend_uncertain=settings.resend_uncertain,
            apology=settings.apology,
            activity=micros(settings.activity_seconds),
        )
