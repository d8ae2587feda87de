"""A user as the log tells it: the state, and one small pure function per event type.

`evolve` is total: the log is the truth, so an event never fails here, whatever came before it.
What must not happen is refused where it is decided (`app.aggregates.user`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from app.aggregates import events as e
from app.aggregates import open_work as w
from app.aggregates.shape import shape_of
from eventstore.codec import Event
from eventstore.sealing import Sealed


class UserState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Everything that decisions about one user need, bounded whatever the history.

    Instants are µs of the log's time; 0 stands for "never" or "at once".
    """

    contact: w.Contact | None = None
    profile: Sealed[e.Profile] | None = None

    pending: tuple[w.Pending, ...] = ()
    """Messages without an answer, oldest first, those of the open run included."""
    typing_at: int = 0
    attempts: int = 0
    """Failed and orphaned runs of the turn that waits."""
    retry_at: int = 0
    """The turn is not claimed before."""
    apologised: bool = False
    """An operator brought the turn back after its apology: there is no second one."""
    run: w.Run | None = None
    delivery: w.Delivery | None = None
    parked: w.Parked | None = None

    thread: w.Thread | None = None
    last_reset: e.ResetReason | None = None
    """Why the last thread was left; None while the first one is linked, or none ever was."""

    activity_at: int = 0
    """The last interaction."""
    touched_at: int = 0
    """The last event that moves the client view, if it is not recorded yet; else 0."""
    recorded: w.Activity | None = None

    early_edits: tuple[w.Early, ...] = ()
    early_deletes: tuple[w.Early, ...] = ()
    sent: tuple[bytes, ...] = ()
    """Refs of the bot's newest messages."""


BLANK: Final = UserState()
"""A user of whom the log knows nothing."""

STATE_RULES: Final = 2
STATE_SHAPE: Final = shape_of(UserState, STATE_RULES)
"""Kept with a snapshot: another shape means replay."""

pack: Final[Callable[[UserState], bytes]] = msgspec.msgpack.Encoder().encode
"""Encode a state for a snapshot."""

unpack: Final = msgspec.msgpack.Decoder(UserState).decode
"""Decode a snapshot's state. Raises `msgspec.MsgspecError` for bytes of another shape."""


def evolve(state: UserState, event: Event, version: int, recorded_at: int) -> UserState:
    """Return the state after `event`, the stream's `version`-th, appended at `recorded_at`.

    Raises `KeyError` for a class that is not one of `USER_EVENTS`.
    """
    return _EVOLVE[type(event)](state, event, version, recorded_at)


def fold(
    state: UserState, version: int, events: Iterable[Event], recorded_at: int
) -> tuple[UserState, int]:
    """Apply the events of one append to the state at `version`; return both after it."""
    for event in events:
        version += 1
        state = evolve(state, event, version, recorded_at)
    return state, version


# --- who it is -----------------------------------------------------------------------------------


def _registered(s: UserState, event: e.UserRegistered, _version: int, at: int) -> UserState:
    return replace(s, contact=w.Contact(event.gateway, event.chat, at))


def _profile_updated(s: UserState, event: e.ProfileUpdated, _version: int, _at: int) -> UserState:
    return replace(s, profile=event.profile)


# --- what they write -----------------------------------------------------------------------------


def _received(s: UserState, event: e.MessageReceived, version: int, at: int) -> UserState:
    if not event.answerable:
        return replace(s, activity_at=at, touched_at=at)
    text = version
    if s.early_deletes or s.early_edits:
        deleted = w.find(s.early_deletes, event.ref)
        edited = w.find(s.early_edits, event.ref)
        s = _arrived(s, event.ref)
        if deleted is not None:
            return replace(s, activity_at=at, touched_at=at)
        text = version if edited is None else edited.version
    claimed = 0 if s.run is None else s.run.up_to
    pending = w.appended(s.pending, w.Pending(event.ref, version, at, text), claimed)
    return replace(s, pending=pending, activity_at=at, touched_at=at)


def _arrived(s: UserState, ref: bytes) -> UserState:
    return replace(
        s,
        early_edits=tuple([early for early in s.early_edits if early.ref != ref]),
        early_deletes=tuple([early for early in s.early_deletes if early.ref != ref]),
    )


def _edited(s: UserState, event: e.MessageEdited, version: int, _at: int) -> UserState:
    if event.early:
        return replace(s, early_edits=w.remembered(s.early_edits, event.ref, version))
    parked = s.parked
    if parked is not None:
        parked = replace(parked, messages=w.rewritten(parked.messages, event.ref, version))
    return replace(s, pending=w.rewritten(s.pending, event.ref, version), parked=parked)


def _deleted(s: UserState, event: e.MessageDeleted, version: int, _at: int) -> UserState:
    if event.early:
        return replace(s, early_deletes=w.remembered(s.early_deletes, event.ref, version))
    parked = s.parked
    if parked is not None:
        left = w.without(parked.messages, event.ref)
        parked = replace(parked, messages=left) if left else None
    return _settled(replace(s, pending=w.without(s.pending, event.ref), parked=parked))


def _settled(s: UserState) -> UserState:
    """End the turn if nothing waits any more and no run is open."""
    if s.pending or s.run is not None:
        return s
    return replace(s, attempts=0, retry_at=0, apologised=False)


def _typing(s: UserState, _event: e.TypingObserved, _version: int, at: int) -> UserState:
    return replace(s, typing_at=at)


def _human_wrote(s: UserState, _event: e.HumanMessageSent, _version: int, at: int) -> UserState:
    return replace(s, activity_at=at, touched_at=at)


def _imported(s: UserState, event: e.MessageImported, _version: int, at: int) -> UserState:
    written_at = event.at or at
    if written_at <= s.activity_at:  # what is old is news only if nothing newer is known
        return s
    return replace(s, activity_at=written_at, touched_at=at)


def _echoed(s: UserState, event: e.MessageEchoed, version: int, _at: int) -> UserState:
    return _signed(s, w.Sign(event.ref, version, "echo"))


def _status(s: UserState, event: e.MessageStatusChanged, version: int, _at: int) -> UserState:
    return _signed(s, w.Sign(event.ref, version, "status"))


def _signed(s: UserState, sign: w.Sign) -> UserState:
    if s.delivery is None or sign.ref in s.sent:
        return s
    return replace(s, delivery=replace(s.delivery, signs=w.signed(s.delivery.signs, sign)))


# --- the thread ----------------------------------------------------------------------------------


def _thread_started(s: UserState, event: e.ThreadStarted, _version: int, at: int) -> UserState:
    run = s.run
    if run is not None and run.response is None:
        run = replace(run, thread=event.thread)
    thread = w.Thread(event.thread, event.at or at, 0, event.last_item)
    return replace(s, thread=thread, run=run, touched_at=at)


def _thread_reset(s: UserState, event: e.ThreadReset, _version: int, at: int) -> UserState:
    if s.thread is None or s.thread.id != event.thread:
        return replace(s, last_reset=event.reason)
    left = replace(s.thread, tokens=0, last_item=None) if event.reason == "empty" else None
    return replace(s, thread=left, last_reset=event.reason, touched_at=at)


def _tokens(s: UserState, event: e.TokensIncremented, _version: int, at: int) -> UserState:
    thread = s.thread
    if thread is None or thread.id != event.thread:
        return s
    counted = w.Thread(thread.id, thread.started_at, thread.tokens + event.total, thread.last_item)
    return replace(s, thread=counted, activity_at=at, touched_at=at)


def _usage_unknown(s: UserState, _event: e.UsageUnknown, _version: int, _at: int) -> UserState:
    return s


# --- the run -------------------------------------------------------------------------------------


def _run_started(s: UserState, event: e.RunStarted, version: int, at: int) -> UserState:
    thread = None if s.thread is None else s.thread.id
    run = w.Run(
        event.run, event.node, event.incarnation, event.attempt, event.up_to, version, at, thread
    )
    return replace(s, pending=w.merged(s.pending), run=run, retry_at=0)


def _taken_over(s: UserState, event: e.TurnTakenOver, _version: int, _at: int) -> UserState:
    run, delivery = s.run, s.delivery
    if run is not None and run.id == event.run:
        run = replace(run, node=event.node, incarnation=event.incarnation)
    if delivery is not None and delivery.run == event.run:
        delivery = replace(delivery, node=event.node, incarnation=event.incarnation)
    return replace(s, run=run, delivery=delivery)


def _run_submitted(s: UserState, event: e.RunSubmitted, _version: int, _at: int) -> UserState:
    run = s.run
    if run is None or run.id != event.run:
        return s
    thread = run.thread if event.thread is None else event.thread
    return replace(s, run=replace(run, response=event.response, thread=thread))


def _run_completed(s: UserState, event: e.RunCompleted, version: int, at: int) -> UserState:
    run, thread, delivery = s.run, s.thread, None
    if run is None:
        return s
    if thread is not None and thread.id == run.thread and event.last_item is not None:
        thread = w.Thread(thread.id, thread.started_at, thread.tokens, event.last_item)
    if event.parts > 0:
        delivery = w.Delivery(
            event.run, version, event.parts, at, run.node, run.incarnation, touched_at=at
        )
    return replace(
        s,
        pending=w.after(s.pending, run.up_to),
        run=None,
        delivery=delivery,
        thread=thread,
        attempts=0,
        retry_at=0,
        apologised=False,
        activity_at=at,
        touched_at=at,
    )


def _run_failed(s: UserState, event: e.RunFailed, _version: int, _at: int) -> UserState:
    return _run_ended(s, s.attempts + 1, event.retry_at or 0)


def _run_cancelled(s: UserState, event: e.RunCancelled, _version: int, _at: int) -> UserState:
    counted = 1 if event.reason == "orphaned" else 0
    return _run_ended(s, s.attempts + counted, event.retry_at or 0)


def _run_ended(s: UserState, attempts: int, retry_at: int) -> UserState:
    if w.claimed(s.pending, s.run):
        return replace(s, run=None, attempts=attempts, retry_at=retry_at)
    # Everything that the run was to answer was taken back: what waits now is another turn.
    return replace(s, run=None, attempts=0, retry_at=0, apologised=False)


# --- giving up -----------------------------------------------------------------------------------


def _parked(s: UserState, event: e.TurnParked, version: int, at: int) -> UserState:
    given_up = w.up_to(s.pending, event.up_to)
    before = s.parked
    turns = 1
    if before is not None:
        given_up, turns = w.merged((*before.messages, *given_up)), before.turns + 1
    delivery = s.delivery
    if event.apology is not None:
        delivery = w.Delivery(event.run, version, event.parts, at, touched_at=at, apology=True)
    return replace(
        s,
        pending=w.after(s.pending, event.up_to),
        parked=w.Parked(event.reason, event.attempts, at, given_up, turns) if given_up else None,
        run=None,
        delivery=delivery,
        attempts=0,
        retry_at=0,
        apologised=False,
    )


def _retried(s: UserState, _event: e.TurnRetried, _version: int, _at: int) -> UserState:
    if s.parked is None:
        return s
    return replace(
        s,
        pending=w.merged((*s.parked.messages, *s.pending)),
        parked=None,
        attempts=0,
        retry_at=0,
        apologised=True,
    )


def _dropped(s: UserState, _event: e.TurnDropped, _version: int, _at: int) -> UserState:
    return replace(s, parked=None)


# --- the delivery --------------------------------------------------------------------------------


def _delivery_started(s: UserState, event: e.DeliveryStarted, _version: int, at: int) -> UserState:
    if s.delivery is None:
        return s
    delivery = replace(
        s.delivery, in_flight=event.deadline, attempt=event.attempt, retry_at=0, touched_at=at
    )
    return replace(s, delivery=delivery)


def _sent(s: UserState, event: e.MessageSent, _version: int, at: int) -> UserState:
    return replace(
        s,
        delivery=w.next_part(s.delivery, at, event.ref),
        sent=(*s.sent[1 - w.MAX_SENT :], event.ref),
        activity_at=at,
        touched_at=at,
    )


def _delivery_failed(s: UserState, event: e.DeliveryFailed, _version: int, at: int) -> UserState:
    if s.delivery is None or event.retry_at is None:
        return replace(s, delivery=w.next_part(s.delivery, at))
    delivery = replace(s.delivery, in_flight=None, retry_at=event.retry_at, touched_at=at)
    return replace(s, delivery=delivery)


def _uncertain(s: UserState, _event: e.DeliveryUncertain, _version: int, at: int) -> UserState:
    return replace(s, delivery=w.next_part(s.delivery, at))


# --- the client view -----------------------------------------------------------------------------


def _activity(s: UserState, event: e.ActivityRecorded, _version: int, _at: int) -> UserState:
    recorded = w.Activity(event.last_activity, event.tokens, event.thread)
    last = max(s.activity_at, event.last_activity)  # an import may know of a later one
    return replace(s, recorded=recorded, activity_at=last, touched_at=0)


_EVOLVE: Final[dict[type[Event], Callable[[UserState, Any, int, int], UserState]]] = {
    e.UserRegistered: _registered,
    e.ProfileUpdated: _profile_updated,
    e.MessageReceived: _received,
    e.MessageEdited: _edited,
    e.MessageDeleted: _deleted,
    e.TypingObserved: _typing,
    e.HumanMessageSent: _human_wrote,
    e.MessageImported: _imported,
    e.MessageEchoed: _echoed,
    e.MessageStatusChanged: _status,
    e.ThreadStarted: _thread_started,
    e.ThreadReset: _thread_reset,
    e.RunStarted: _run_started,
    e.TurnTakenOver: _taken_over,
    e.RunSubmitted: _run_submitted,
    e.RunCompleted: _run_completed,
    e.RunFailed: _run_failed,
    e.RunCancelled: _run_cancelled,
    e.TokensIncremented: _tokens,
    e.UsageUnknown: _usage_unknown,
    e.DeliveryStarted: _delivery_started,
    e.MessageSent: _sent,
    e.DeliveryFailed: _delivery_failed,
    e.DeliveryUncertain: _uncertain,
    e.TurnParked: _parked,
    e.TurnRetried: _retried,
    e.TurnDropped: _dropped,
    e.ActivityRecorded: _activity,
}
