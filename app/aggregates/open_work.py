"""What a user's stream leaves open: messages that wait, a run, a delivery, a parked turn.

Small frozen values, bounded whatever the history. All instants are µs of the log's time.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from app.aggregates.events import ParkReason
from eventstore.sealing import Sealed

MAX_WAITING = 200
"""Entries kept of the messages that wait; more are merged into the newest entry."""

MAX_EARLY = 50
"""Edits and deletes kept until their message arrives; the oldest goes first."""

MAX_SIGNS = 20
"""Echoes and statuses of unknown sends that are kept while a delivery is open."""

MAX_SENT = 20
"""Refs of our newest sends, by which their echoes and statuses are told from unknown ones."""


class Pending(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message that waits for its answer.

    `version` is the event that received it, `text` the event that holds its newest content
    (an edit, or the same). With `count` > 1 the entry stands for so many messages, the newest
    at `version`, the others between the entry before and it; their refs are forgotten.
    """

    ref: bytes
    version: int
    at: int
    text: int
    count: int = 1


class Early(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An edit or a delete (the event at `version`) that came before its message."""

    ref: bytes
    version: int


class Run(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The attempt that holds the turn: the lock, as the log shows it."""

    id: str
    node: str
    incarnation: str
    attempt: int
    up_to: int
    """Version of the last message that it answers."""
    version: int
    """Version of its `RunStarted`."""
    started_at: int
    thread: str | None = None
    response: str | None = None


class Sign(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A send that the gateway showed (the event at `version`) and no `MessageSent` names."""

    ref: bytes
    version: int
    how: Literal["echo", "status"]


class Delivery(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A reply, or an apology, that is not handed over completely.

    The sealed reply is in the event at `version`. While `in_flight` (a deadline) is set, part
    `next_part` may be on its way: a successor waits for the deadline, then finds out.
    """

    run: str
    version: int
    parts: int
    opened_at: int
    node: str = ""
    incarnation: str = ""
    """Who made the reply; empty for an apology: whoever finds it delivers it."""
    next_part: int = 0
    in_flight: int | None = None
    attempt: int = 0
    """How often `next_part` has been started."""
    retry_at: int = 0
    """When `next_part` may be started again; 0: at once."""
    touched_at: int = 0
    """When the delivery last moved."""
    apology: bool = False
    signs: tuple[Sign, ...] = ()


class Parked(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Turns that were given up until an operator retries or drops them."""

    reason: ParkReason
    attempts: int
    at: int
    messages: tuple[Pending, ...]
    turns: int = 1


class Thread(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The OpenAI conversation that is linked now, and the tokens counted on it."""

    id: str
    started_at: int
    """µs of the log's time; of an imported one, when it was begun elsewhere."""
    tokens: int = 0
    last_item: str | None = None
    """The newest item that a completed run left there: what recovery trims back to."""


class Activity(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The delayed client view, as last recorded."""

    last_activity: int
    tokens: int
    thread: str | None


class Contact(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where the person can be reached."""

    gateway: str
    chat: Sealed[str]
    registered_at: int


def total(waiting: tuple[Pending, ...]) -> int:
    """How many messages the entries stand for."""
    return sum([entry.count for entry in waiting])


def merged(waiting: tuple[Pending, ...]) -> tuple[Pending, ...]:
    """Return at most `MAX_WAITING` entries: what is beyond becomes part of the last."""
    if len(waiting) <= MAX_WAITING:
        return waiting
    kept, surplus = waiting[: MAX_WAITING - 1], waiting[MAX_WAITING - 1 :]
    newest = surplus[-1]
    count = sum(entry.count for entry in surplus)
    return (*kept, Pending(b"", newest.version, newest.at, 0, count))


def appended(waiting: tuple[Pending, ...], entry: Pending, apart: int) -> tuple[Pending, ...]:
    """Return the messages that wait with one more; those up to version `apart` stay as they are.

    An entry that a run has claimed is never merged with one that it has not: at most
    `MAX_WAITING` + 1 entries while a run is open.
    """
    if len(waiting) < MAX_WAITING or waiting[-1].version <= apart:
        return waiting + (entry,)  # noqa: RUF005 - one pass over what may be long, not four
    last = waiting[-1]
    return (*waiting[:-1], Pending(b"", entry.version, entry.at, 0, last.count + entry.count))


def after(waiting: tuple[Pending, ...], version: int) -> tuple[Pending, ...]:
    """Return the messages that came after `version`."""
    if not waiting or waiting[-1].version <= version:
        return ()
    return tuple([entry for entry in waiting if entry.version > version])


def claimed(waiting: tuple[Pending, ...], run: Run | None) -> bool:
    """Tell whether one of the messages that `run` answers still waits."""
    return run is not None and bool(waiting) and waiting[0].version <= run.up_to


def up_to(waiting: tuple[Pending, ...], version: int) -> tuple[Pending, ...]:
    """Return the messages that came at or before `version`."""
    return tuple([entry for entry in waiting if entry.version <= version])


def without(waiting: tuple[Pending, ...], ref: bytes) -> tuple[Pending, ...]:
    """Return the messages but the one that `ref` names."""
    return tuple([entry for entry in waiting if entry.ref != ref])


def rewritten(waiting: tuple[Pending, ...], ref: bytes, text: int) -> tuple[Pending, ...]:
    """Return the messages, the one that `ref` names with its content in the event at `text`."""
    return tuple(
        [
            Pending(ref, entry.version, entry.at, text, entry.count) if entry.ref == ref else entry
            for entry in waiting
        ]
    )


def find(kept: tuple[Early, ...], ref: bytes) -> Early | None:
    """Return what was kept for the message that `ref` names."""
    return next((early for early in kept if early.ref == ref), None)


def remembered(kept: tuple[Early, ...], ref: bytes, version: int) -> tuple[Early, ...]:
    """Return what is kept with one more; a second one for `ref` takes the first one's place."""
    others = [early for early in kept if early.ref != ref]
    return (*others[-MAX_EARLY + 1 :], Early(ref, version))


def signed(signs: tuple[Sign, ...], sign: Sign) -> tuple[Sign, ...]:
    """Return the signs with one more. An echo says more than a status of the same message."""
    same = next((known for known in signs if known.ref == sign.ref), None)
    if same is None:
        return (*signs[1 - MAX_SIGNS :], sign)
    if same.how == "echo" or sign.how == "status":
        return signs
    return tuple([sign if known is same else known for known in signs])


def next_part(delivery: Delivery | None, at: int, sent: bytes | None = None) -> Delivery | None:
    """Return the delivery after its part is settled; None if that was the last one."""
    if delivery is None or delivery.next_part + 1 >= delivery.parts:
        return None
    return msgspec.structs.replace(
        delivery,
        next_part=delivery.next_part + 1,
        in_flight=None,
        attempt=0,
        retry_at=0,
        touched_at=at,
        signs=tuple([sign for sign in delivery.signs if sign.ref != sent]),
    )
