"""What each collection of a Whapi webhook says, item by item. Pure.

`READERS` names the collections that a bot reads; a reader takes one item and the kind of what is
kept as it came, and returns facts. Raises for an item that cannot be read: one of `UNREADABLE`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Raw

from app.api.whapi_messages import (
    UNREADABLE,
    Tolerant,
    micros,
    other_kind,
    person_of,
    read_message,
    word,
)
from app.conversation.facts import (
    DeleteFact,
    EditFact,
    Fact,
    MessageFact,
    OtherFact,
    PresenceFact,
    RejectedFact,
    StatusFact,
)

_ABSENT = Raw()
"""Decodes as nothing, like null and like garbage."""


class _Status(msgspec.Struct, gc=False):
    id: str
    status: str
    recipient_id: str | None = None
    timestamp: int | float | str | None = None


class _Presence(msgspec.Struct, gc=False):
    contact_id: str
    status: str | None = None


class _MessageUpdate(msgspec.Struct, gc=False):
    id: str | None = None
    trigger: Raw = _ABSENT
    before_update: Raw = _ABSENT
    after_update: Raw = _ABSENT
    changes: list[str] | None = None


class _ChatUpdate(msgspec.Struct, gc=False):
    before_update: dict[str, Raw] | None = None
    after_update: dict[str, Raw] | None = None


class _Version(msgspec.Struct, gc=False):
    """What of a message may change besides its content."""

    status: str | None = None
    timestamp: int | float | str | None = None


class _Call(msgspec.Struct, gc=False):
    id: str | None = None
    status: str | None = None


OBJECT = msgspec.json.Decoder(dict[str, Raw])
_STRING = msgspec.json.Decoder(str)
_STATUS = Tolerant(_Status, "id", "status")
_PRESENCE = Tolerant(_Presence, "contact_id")
_CALL = Tolerant(_Call)
_VERSION = Tolerant(_Version)
_MESSAGE_UPDATE = Tolerant(_MessageUpdate)
_CHAT_UPDATE = Tolerant(_ChatUpdate)


def string_of(raw: Raw | None) -> str:
    """Return a JSON string, "" for anything else."""
    try:
        return "" if raw is None else _STRING.decode(raw)
    except UNREADABLE:
        return ""


def _messages(item: Raw, kind: str) -> tuple[Fact, ...]:
    fact = read_message(item, kind_of_rest=kind)
    if not kind.endswith(".put"):
        return (fact,)
    if isinstance(fact, OtherFact):  # an edit has its message's id: it is no duplicate of it
        return (OtherFact(kind=fact.kind, raw=fact.raw),)
    if isinstance(fact, MessageFact):
        return (EditFact(fact.id, fact),)
    return (fact,)


def read_removed(items: list[Raw], facts: list[Fact]) -> None:
    """Read `messages_removed`: ids, taken back together."""
    ids: list[str] = []
    for item in items:
        if identifier := string_of(item):
            ids.append(identifier)
        else:
            facts.append(RejectedFact(reason="messages_removed: not an id", raw=bytes(item)))
    if ids:
        facts.append(DeleteFact(tuple(ids)))


def _statuses(item: Raw, kind: str) -> tuple[Fact, ...]:
    seen = _STATUS.decode(item)
    status = word(seen.status)
    if not seen.id or not status:
        msg = "a status without an id or a name"
        raise ValueError(msg)
    chat = seen.recipient_id or ""
    person = person_of(chat)
    if chat and person is None:
        return (OtherFact(kind=other_kind(chat, "status", kind), raw=bytes(item)),)
    return (StatusFact(seen.id, status, person, micros(seen.timestamp)),)


def _presences(item: Raw, kind: str) -> tuple[Fact, ...]:
    seen = _PRESENCE.decode(item)
    person = person_of(seen.contact_id)
    presence = word(seen.status)
    if person is None or not presence:
        kind = other_kind(seen.contact_id, "presence", kind)
        return (OtherFact(kind=kind, raw=bytes(item)),)
    return (PresenceFact(person, presence),)


def _calls(item: Raw, kind: str) -> tuple[Fact, ...]:
    """Keep a call; each of its states (ringing, missed, …) is an event of its own."""
    call = _CALL.decode(item)
    identifier = f"{call.id}:{word(call.status)}" if call.id else ""
    return (OtherFact(kind=kind, raw=bytes(item), id=identifier),)


# --- Updates: what differs between before and after -----------------------------------------------


def _message_updates(item: Raw, kind: str) -> tuple[Fact, ...]:
    """Read a changed message: an edit, a deletion, a status, a reaction; or keep it as it came."""
    update = _MESSAGE_UPDATE.decode(item)
    trigger = _readable(update.trigger)
    if isinstance(trigger, DeleteFact):
        return (trigger,)
    at = _version(update.trigger).timestamp
    change = _difference(update.before_update, update.after_update, micros(at))
    if isinstance(change, StatusFact) and set(update.changes or ()) - {"status"}:
        return (change, OtherFact(kind=kind, raw=bytes(item)))
    if change is None and update.id and _readable(update.after_update) is None:
        # Only the changed fields were sent: enough for a status.
        status = _new_status(update.before_update, update.after_update)
        change = StatusFact(update.id, status, None, micros(at)) if status else None
    if change is not None:
        return (change,)
    # The trigger of a reaction or a vote is a message of its own, and so is that of an edit
    # whose before and after cannot be compared.
    if isinstance(trigger, EditFact) or (
        isinstance(trigger, MessageFact) and not trigger.answerable
    ):
        return (trigger,)
    return (OtherFact(kind=kind, raw=bytes(item)),)


def _chat_updates(item: Raw, kind: str) -> tuple[Fact, ...]:
    """Read a changed chat: its newest message is a message like any other; keep the rest."""
    update = _CHAT_UPDATE.decode(item)
    before, after = update.before_update or {}, update.after_update or {}
    old, new = before.get("last_message", _ABSENT), after.get("last_message", _ABSENT)
    shown = _readable(new)
    if isinstance(shown, OtherFact | None):
        # A group's update holds nothing that the group's message event does not.
        whole = OtherFact(kind=kind, raw=bytes(item))
        return (whole,) if shown is None else (shown, whole)
    # A person's words are sealed with the person's key, so they are not kept a second time here.
    given = OBJECT.decode(item)
    for side, chat in (("before_update", before), ("after_update", after)):
        if side in given:
            chat.pop("last_message", None)
            given[side] = Raw(msgspec.json.encode(chat))
    rest = OtherFact(kind=kind, raw=msgspec.json.encode(given))
    same = isinstance(shown, MessageFact) and shown.id == _id_of(old)
    fact = _difference(old, new, 0) if same else shown
    return (rest,) if fact is None else (fact, rest)


def _difference(before: Raw, after: Raw, at: int) -> Fact | None:
    """Return what became of one person's message between two versions; None if nothing known.

    `at` is when (µs), 0 if nobody says: the message's own time is that of its first version.
    """
    old, new = _readable(before), _readable(after)
    if not isinstance(new, MessageFact):
        return None
    status = _new_status(before, after)
    if status == "deleted" and new.origin == "person":
        return DeleteFact((new.id,), new.person)
    if isinstance(old, MessageFact) and _said(old) != _said(new):
        return EditFact(new.id, msgspec.structs.replace(new, at=at or new.at))
    return StatusFact(new.id, status, new.person, at) if status else None


def _said(fact: MessageFact) -> tuple[str, str]:
    """Return what an edit changes; a file's link may change by itself, its id does not."""
    return fact.text, fact.media.id if fact.media else ""


def _new_status(before: Raw, after: Raw) -> str:
    """Return the status after, "" if it is none or the same as before."""
    status = word(_version(after).status)
    return "" if status == word(_version(before).status) else status


def _readable(raw: Raw) -> Fact | None:
    try:
        return read_message(raw)
    except UNREADABLE:
        return None


def _version(raw: Raw) -> _Version:
    try:
        return _VERSION.decode(raw)
    except UNREADABLE:
        return _Version()


def _id_of(raw: Raw) -> str:
    fact = _readable(raw)
    return fact.id if isinstance(fact, MessageFact) else ""


# What is not here (chats, contacts, groups, labels, …) is kept whole: no bot reads it.
READERS: dict[str, Callable[[Raw, str], tuple[Fact, ...]]] = {
    "messages": _messages,
    "messages_updates": _message_updates,
    "statuses": _statuses,
    "presences": _presences,
    "calls": _calls,
    "chats_updates": _chat_updates,
}
