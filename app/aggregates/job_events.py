"""Every event of a job's stream, `jobs/<name>`. It holds no personal data.

Wire names as in `app.aggregates.events`.
"""

from __future__ import annotations

from msgspec import field

from eventstore.codec import Event


class JobRequested(Event, frozen=True):
    """An operator wants the job to run now, besides its schedule."""

    by: str = field(name="b")


class JobStarted(Event, frozen=True):
    """A node has claimed a slot of the schedule: nobody else runs it while that node lives."""

    slot: int = field(name="s")
    """When the job was due (µs), by the schedule or by a request: the same on every node."""
    node: str = field(name="n")
    incarnation: str = field(name="i")
    attempt: int = field(name="a", default=1)
    """2 and more: a node died while it was at it."""


class JobEnded(Event, frozen=True):
    """The job of a slot is done."""

    slot: int = field(name="s")
    result: str = field(name="r", default="")
    """What it did, in a few words."""


class JobFailed(Event, frozen=True):
    """The job of a slot failed; it runs again when it is next due."""

    slot: int = field(name="s")
    code: str = field(name="c")


class JobGivenUp(Event, frozen=True):
    """Node after node died while it ran the job: the slot is left alone."""

    slot: int = field(name="s")
    attempts: int = field(name="a")


JOB_EVENTS: tuple[type[Event], ...] = (JobRequested, JobStarted, JobEnded, JobFailed, JobGivenUp)
"""Every class of a job's stream."""
