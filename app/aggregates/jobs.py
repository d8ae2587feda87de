"""A job of the whole fleet: the aggregate of a stream `jobs/<name>`.

A slot is the instant at which the job was due, computed by every node alike. It is claimed by an
append at the expected version, so it runs once, whoever gets it. Slots that nobody could take while
all nodes were down are not made up for one by one: the newest stands for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from app.aggregates import job_events as e
from app.aggregates.answers import Done
from app.aggregates.shape import shape_of
from app.aggregates.stream import Aggregate
from eventstore.codec import Event
from eventstore.types import Micros, StreamName, Version

JOBS_PREFIX: Final = "jobs/"
ATTEMPTS: Final = 3
"""Nodes that may die at one slot before it is left alone."""

_NEW: Final = Version(0)


class JobRun(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A slot that a node is at."""

    slot: int
    node: str
    incarnation: str
    attempt: int
    started_at: int


class JobState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a job stands."""

    slot: int = 0
    """The newest slot that was claimed."""
    running: JobRun | None = None
    requested: int = 0
    """A slot that an operator asked for and nobody has claimed yet."""
    ended_at: int = 0
    outcome: str = ""
    """How the last slot ended: `done`, `failed` or `given up`."""
    says: str = ""
    """Its result, or the code of its failure."""


BLANK: Final = JobState()
STATE_RULES: Final = 1
STATE_SHAPE: Final = shape_of(JobState, STATE_RULES)
pack: Final[Callable[[JobState], bytes]] = msgspec.msgpack.Encoder().encode
"""Encode a state for a snapshot."""

unpack: Final = msgspec.msgpack.Decoder(JobState).decode
"""Decode a snapshot's state. Raises `msgspec.MsgspecError` for bytes of another shape."""


def evolve(state: JobState, event: Event, version: int, recorded_at: int) -> JobState:
    """Return the state after `event`. Total, like a user's."""
    return _EVOLVE[type(event)](state, event, version, recorded_at)


def _requested(s: JobState, _event: e.JobRequested, _version: int, at: int) -> JobState:
    return replace(s, requested=at)


def _started(s: JobState, event: e.JobStarted, _version: int, at: int) -> JobState:
    run = JobRun(event.slot, event.node, event.incarnation, event.attempt, at)
    requested = s.requested if s.requested > event.slot else 0
    return replace(s, slot=max(s.slot, event.slot), running=run, requested=requested)


def _over(s: JobState, slot: int, at: int, outcome: str, says: str) -> JobState:
    running = None if s.running is not None and s.running.slot == slot else s.running
    return replace(s, running=running, ended_at=at, outcome=outcome, says=says)


def _ended(s: JobState, event: e.JobEnded, _version: int, at: int) -> JobState:
    return _over(s, event.slot, at, "done", event.result)


def _failed(s: JobState, event: e.JobFailed, _version: int, at: int) -> JobState:
    return _over(s, event.slot, at, "failed", event.code)


def _given_up(s: JobState, event: e.JobGivenUp, _version: int, at: int) -> JobState:
    return _over(s, event.slot, at, "given up", f"{event.attempts} nodes died")


_EVOLVE: Final[dict[type[Event], Callable[[JobState, Any, int, int], JobState]]] = {
    e.JobRequested: _requested,
    e.JobStarted: _started,
    e.JobEnded: _ended,
    e.JobFailed: _failed,
    e.JobGivenUp: _given_up,
}


# -- answers ---------------------------------------------------------------------------------------


class SlotClaimed(msgspec.Struct, frozen=True, gc=False):
    """The slot is the caller's, once the append is durable."""

    slot: int
    attempt: int


class SlotBusy(msgspec.Struct, frozen=True, gc=False):
    """A node that is not known to be dead is at the job."""

    node: str
    incarnation: str


class SlotTaken(msgspec.Struct, frozen=True, gc=False):
    """The slot, or a later one, was claimed before."""

    slot: int


class SlotGivenUp(msgspec.Struct, frozen=True, gc=False):
    """Too many nodes died at it: raise the alert. It runs again when it is next due."""

    slot: int
    attempts: int


class SlotLost(msgspec.Struct, frozen=True, gc=False):
    """Another node was given the slot, since the caller was thought dead. Nothing was recorded."""

    slot: int


SlotClaim = SlotClaimed | SlotBusy | SlotTaken | SlotGivenUp
SlotEnd = Done | SlotLost


class Job(Aggregate[JobState]):
    """A job, ready to decide."""

    __slots__ = ()

    def __init__(
        self,
        stream: StreamName,
        state: JobState = BLANK,
        version: Version = _NEW,
        *,
        read_only: bool = False,
    ) -> None:
        super().__init__(stream, state, version, read_only=read_only)

    def request(self, by: str, *, now: Micros) -> Done:
        """Ask for a run besides the schedule."""
        return self._record(e.JobRequested(by=by), now)

    def claim(
        self, slot: int, *, node: str, incarnation: str, now: Micros, dead: str = ""
    ) -> SlotClaim:
        """Take a slot. `dead` is the incarnation that is known to have died while it was at it.

        A dead node's slot is taken over; if a later one is due it stands for both.
        """
        self._decide()
        running, attempt = self.state.running, 1
        if running is not None:
            if running.incarnation != dead:
                return SlotBusy(running.node, running.incarnation)
            if running.attempt >= ATTEMPTS:
                self._trigger(e.JobGivenUp(slot=running.slot, attempts=running.attempt), now)
                return SlotGivenUp(running.slot, running.attempt)
            slot, attempt = max(slot, running.slot), running.attempt + 1
        elif slot <= self.state.slot:
            return SlotTaken(self.state.slot)
        event = e.JobStarted(slot=slot, node=node, incarnation=incarnation, attempt=attempt)
        self._trigger(event, now)
        return SlotClaimed(slot, attempt)

    def end(self, slot: int, incarnation: str, result: str, *, now: Micros) -> SlotEnd:
        """Record that the job of a slot is done."""
        if not self._is_at(slot, incarnation):
            return SlotLost(slot)
        return self._record(e.JobEnded(slot=slot, result=result), now)

    def fail(self, slot: int, incarnation: str, code: str, *, now: Micros) -> SlotEnd:
        """Record that the job of a slot failed. `code` is short and without personal data."""
        if not self._is_at(slot, incarnation):
            return SlotLost(slot)
        return self._record(e.JobFailed(slot=slot, code=code), now)

    def _is_at(self, slot: int, incarnation: str) -> bool:
        running = self.state.running
        return running is not None and (running.slot, running.incarnation) == (slot, incarnation)

    def _evolve(self, event: Event, version: Version, now: Micros) -> JobState:
        return evolve(self.state, event, version, now)
