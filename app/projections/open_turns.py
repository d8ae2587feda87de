"""What is open of a user's turn while its latency is taken: what waits since when, how far it is.

The same rules as `app.aggregates.user_state`, reduced to instants: a message waits from its
`MessageReceived` on; `RunStarted` claims all that wait; what is taken back waits no more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from app.aggregates import events as e
from eventstore.codec import Event

MAX_KEPT: Final = 200
"""Messages that are told apart; a burst beyond that is timed by its first and its last."""
MAX_EARLY: Final = 50


class Waiting(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """One message, or, with a `count` above 1, the last of several."""

    ref: bytes
    at: int
    count: int = 1


class Turn(msgspec.Struct, array_like=True, gc=False):
    """A turn, from its first run on; changed in place until it has ended.

    Instants are µs of the log's time.
    """

    first_at: int
    """The first of the messages came that the first run claimed."""
    gathered_at: int
    """The last of them came."""
    claimed_at: int
    """The first run was claimed."""
    started_at: int
    """The last one was."""
    runs: int = 1
    submitted_at: int | None = None
    completed_at: int | None = None
    outcome: str = ""
    """sent: every part was handed over. part: some were not, or nobody knows. silent: the model had
    nothing to say. parked: given up. Empty: it goes on."""
    last_at: int = 0
    """The last message that it answers came: later, if a run failed and more came meanwhile."""
    messages: int = 0
    """How many it answers; what was taken back is not counted."""
    ended_at: int = 0


class OpenTurn(msgspec.Struct, array_like=True, gc=False):
    """One user's, changed in place. Everything at its default means that nothing is open.

    Tuples: those for whom nothing is open, most users, share the empty one.
    """

    waiting: tuple[Waiting, ...] = ()
    claimed: tuple[Waiting, ...] = ()
    parked: tuple[Waiting, ...] = ()
    early: tuple[bytes, ...] = ()
    run: str = ""
    turn: Turn | None = None
    """What the run is part of; or the one that failed, whose messages are still claimed."""
    delivering: str = ""
    """Run whose reply is being handed over."""
    parts: int = 0
    unsure: bool = False
    """A part of it was not handed over, or nobody knows."""
    answered: Turn | None = None
    """The turn whose reply is being handed over."""

    def take(self, at: int, event: Event) -> Turn | None:
        """Go on by one event, recorded at `at`; return a turn that it ends."""
        return TAKE[type(event)](self, at, event)

    @property
    def is_blank(self) -> bool:
        """Whether nothing is open."""
        return self == _BLANK


def _received(s: OpenTurn, at: int, event: e.MessageReceived) -> None:
    if not event.answerable:
        return
    if s.early and event.ref in s.early:
        s.early = tuple(ref for ref in s.early if ref != event.ref)
        return
    if len(s.waiting) < MAX_KEPT:
        s.waiting += (Waiting(event.ref, at),)
    else:
        last = Waiting(b"", at, s.waiting[-1].count + 1)
        s.waiting = (*s.waiting[:-1], last)


def _deleted(s: OpenTurn, _: int, event: e.MessageDeleted) -> None:
    if event.early:
        others = [ref for ref in s.early if ref != event.ref]
        s.early = (*others[1 - MAX_EARLY :], event.ref)
        return
    for name in ("waiting", "claimed", "parked"):
        kept = getattr(s, name)
        if any(message.ref == event.ref for message in kept):
            setattr(s, name, tuple(message for message in kept if message.ref != event.ref))
    if not s.run and not s.claimed:
        _forget_runs(s)


def _started(s: OpenTurn, at: int, event: e.RunStarted) -> None:
    s.claimed += s.waiting
    s.waiting = ()
    s.run = event.run
    turn = s.turn
    if turn is None:
        first, last = _span(s.claimed, at)
        s.turn = Turn(first, last, at, at)
    else:
        turn.runs += 1
        turn.started_at = at
        turn.submitted_at = None


def _span(messages: tuple[Waiting, ...], otherwise: int) -> tuple[int, int]:
    """Return when the first and the last came; those that were parked may stand anywhere."""
    if len(messages) == 1:
        return messages[0].at, messages[0].at
    times = [message.at for message in messages] or [otherwise]
    return min(times), max(times)


def _submitted(s: OpenTurn, at: int, event: e.RunSubmitted) -> None:
    if s.turn is not None and event.run == s.run:
        s.turn.submitted_at = at


def _completed(s: OpenTurn, at: int, event: e.RunCompleted) -> Turn | None:
    if not s.run:
        return None
    turn = _ended(s, "sent" if event.parts else "silent", at, completed_at=at)
    if not event.parts:
        return turn
    s.delivering, s.parts, s.unsure, s.answered = event.run, event.parts, False, turn
    return None


def _failed(s: OpenTurn, _: int, _event: e.RunFailed | e.RunCancelled) -> None:
    s.run = ""
    if not s.claimed:  # all that it was to answer was taken back: what waits is another turn
        _forget_runs(s)


def _forget_runs(s: OpenTurn) -> None:
    s.run, s.turn = "", None


def _parked(s: OpenTurn, at: int, event: e.TurnParked) -> Turn | None:
    given_up = s.claimed
    turn = _ended(s, "parked", at, completed_at=None)
    s.parked = (s.parked + given_up)[-MAX_KEPT:]
    if event.apology is not None:  # an apology is no answer: nobody times it
        s.delivering, s.answered = "", None
    return turn


def _retried(s: OpenTurn, _: int, _event: e.TurnRetried) -> None:
    s.waiting = s.parked + s.waiting
    s.parked = ()


def _dropped(s: OpenTurn, _: int, _event: e.TurnDropped) -> None:
    s.parked = ()


def _sent(s: OpenTurn, at: int, event: e.MessageSent) -> Turn | None:
    return _settled(s, at, event.run, event.part, surely=True)


def _not_sent(s: OpenTurn, at: int, event: e.DeliveryFailed) -> Turn | None:
    if event.retry_at is not None:
        return None
    return _settled(s, at, event.run, event.part, surely=False)


def _uncertain(s: OpenTurn, at: int, event: e.DeliveryUncertain) -> Turn | None:
    return _settled(s, at, event.run, event.part, surely=False)


def _settled(s: OpenTurn, at: int, run: str, part: int, *, surely: bool) -> Turn | None:
    turn = s.answered
    if turn is None or run != s.delivering:
        return None
    s.unsure = s.unsure or not surely
    if part + 1 < s.parts:
        return None
    turn.outcome, turn.ended_at = "part" if s.unsure else "sent", at
    s.delivering, s.parts, s.unsure, s.answered = "", 0, False, None
    return turn


def _ended(s: OpenTurn, outcome: str, at: int, *, completed_at: int | None) -> Turn | None:
    """Close the run; None if every message of it was taken back: there is nothing to time."""
    turn, claimed = s.turn, s.claimed
    s.claimed = ()
    _forget_runs(s)
    if turn is None or not claimed:
        return None
    turn.outcome, turn.completed_at, turn.ended_at = outcome, completed_at, at
    if len(claimed) == 1:  # most turns
        turn.last_at, turn.messages = claimed[0].at, claimed[0].count
    else:
        turn.last_at = max(message.at for message in claimed)
        turn.messages = sum(message.count for message in claimed)
    return turn


TAKE: Final[dict[type[Event], Callable[[OpenTurn, int, Any], Turn | None]]] = {
    e.MessageReceived: _received,
    e.MessageDeleted: _deleted,
    e.RunStarted: _started,
    e.RunSubmitted: _submitted,
    e.RunCompleted: _completed,
    e.RunFailed: _failed,
    e.RunCancelled: _failed,
    e.TurnParked: _parked,
    e.TurnRetried: _retried,
    e.TurnDropped: _dropped,
    e.MessageSent: _sent,
    e.DeliveryFailed: _not_sent,
    e.DeliveryUncertain: _uncertain,
}
"""What each event changes; returns the turn that it ends, if it ends one."""

TURN_EVENTS: Final = tuple(TAKE)
_BLANK: Final = OpenTurn()
