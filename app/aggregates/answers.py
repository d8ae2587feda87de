"""What decisions are asked with, and the small closed sets of answers that they give.

A refusal is an answer, not an error: nothing was triggered, and the answer says what stands in
the way. Callers `match` on them and end with `assert_never`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from app.aggregates.events import Reply, ResetReason
from eventstore.sealing import Sealed

# --- asked with ----------------------------------------------------------------------------------


class BufferPolicy(msgspec.Struct, frozen=True, gc=False):
    """When a burst of messages is a turn (A4). Times in µs."""

    quiet: int = 5_000_000
    """So long after the last message or sign of typing …"""
    longest: int = 30_000_000
    """… but at most so long after the first message …"""
    most: int = 50
    """… or at once, when so many messages wait."""


class Spent(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one run, as the provider reported them."""

    total: int
    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0
    model: str = ""


Billed = Spent | Literal["unknown", "nothing"]
"""What a run cost: reported, possibly billed but not known, or surely nothing."""


class Apology(msgspec.Struct, frozen=True, gc=False):
    """What is said when a turn is given up; `run` is the id that it is delivered under."""

    run: str
    reply: Sealed[Reply]
    parts: int = 1


# --- may a turn begin? ---------------------------------------------------------------------------


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """The turn is the caller's, once the append is durable."""

    run: str
    attempt: int
    up_to: int


class NotDue(msgspec.Struct, frozen=True, gc=False):
    """Nothing to do before `due_at` (µs); None: nothing waits."""

    due_at: int | None


class Busy(msgspec.Struct, frozen=True, gc=False):
    """`run` has the turn, or its reply is being delivered."""

    run: str


class OnlyParked(msgspec.Struct, frozen=True, gc=False):
    """Nothing waits but turns that were given up: an operator must retry or drop them."""


Claim = Claimed | NotDue | Busy | OnlyParked


# --- is the run still current? -------------------------------------------------------------------


class RunSuperseded(msgspec.Struct, frozen=True, gc=False):
    """`run` does not hold the turn (any more); `current` does. Nothing was triggered."""

    run: str
    current: str | None


class Held(msgspec.Struct, frozen=True, gc=False):
    """The run, or the delivery of its reply, is the caller's, once the append is durable."""

    run: str


class HeldByAnother(msgspec.Struct, frozen=True, gc=False):
    """Not the one that was thought dead holds the run, but `incarnation`."""

    run: str
    incarnation: str


class Submitted(msgspec.Struct, frozen=True, gc=False):
    """The response's id is in the log."""

    version: int


class Completed(msgspec.Struct, frozen=True, gc=False):
    """The reply is in the event at `version`, ready to be delivered.

    `counted`: tokens recorded; 0 if there was nothing to count (log TOKEN_COUNT_SKIPPED when
    the provider reported a total of 0 or less).
    """

    version: int
    counted: int


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """The turn is put back; it is not claimed before `retry_at` (µs; 0: at once)."""

    retry_at: int


class GivenUp(msgspec.Struct, frozen=True, gc=False):
    """The turn is parked: raise the alert. With `apologise`, a delivery is open for it."""

    attempts: int
    apologise: bool


class NothingLeft(msgspec.Struct, frozen=True, gc=False):
    """The run has ended, and its messages were all taken back meanwhile: no turn, no apology."""


TakeOver = Held | HeldByAnother | RunSuperseded
RunSubmission = Submitted | RunSuperseded
RunCompletion = Completed | RunSuperseded
RunEnd = Waiting | GivenUp | NothingLeft | RunSuperseded


# --- the delivery --------------------------------------------------------------------------------


class PartStarted(msgspec.Struct, frozen=True, gc=False):
    """Send the part now, once the append is durable."""

    part: int
    attempt: int


class InFlight(msgspec.Struct, frozen=True, gc=False):
    """Somebody may be sending the part until `deadline` (µs): find out after it."""

    part: int
    deadline: int


class NotYet(msgspec.Struct, frozen=True, gc=False):
    """The gateway asked to wait until `retry_at` (µs)."""

    retry_at: int


class PartSettled(msgspec.Struct, frozen=True, gc=False):
    """The part's outcome is recorded; `next_part` is None when the turn is over."""

    next_part: int | None


class PartPutBack(msgspec.Struct, frozen=True, gc=False):
    """The part was surely not sent and is tried again at `retry_at` (µs)."""

    retry_at: int


class NotThisPart(msgspec.Struct, frozen=True, gc=False):
    """The part is settled already, or not begun. `next_part`: None if no delivery is open."""

    next_part: int | None


DeliveryStart = PartStarted | InFlight | NotYet | NotThisPart | HeldByAnother
PartOutcome = PartSettled | NotThisPart
PartFailure = PartSettled | PartPutBack | NotThisPart


# --- the thread ----------------------------------------------------------------------------------


class ThreadLinked(msgspec.Struct, frozen=True, gc=False):
    """The thread is current. `left`: what was left for it; `lost` tokens were counted there."""

    thread: str
    reason: ResetReason
    left: str | None = None
    lost: int = 0


class ThreadLeft(msgspec.Struct, frozen=True, gc=False):
    """The thread is unlinked, or its count is 0 (`empty`); `lost` tokens had been counted."""

    thread: str
    reason: ResetReason
    lost: int


class ThreadKept(msgspec.Struct, frozen=True, gc=False):
    """Nothing changed: there is no such thread, or nothing to reset."""


ThreadNeed = Literal["ok", "start", "renew", "refill"]
ThreadStart = ThreadLinked | ThreadKept | RunSuperseded
ThreadEnd = ThreadLeft | ThreadKept | RunSuperseded


# --- the rest ------------------------------------------------------------------------------------


class Done(msgspec.Struct, frozen=True, gc=False):
    """It is recorded, in the event at `version`."""

    version: int


class Nothing(msgspec.Struct, frozen=True, gc=False):
    """There was nothing to record."""


Outcome = Done | Nothing
