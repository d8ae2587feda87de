"""One webhook body of Whapi → the facts that it states. Pure: no clock, no I/O, no state.

An item that cannot be read becomes a `RejectedFact` and its neighbours are kept; a collection
that no bot reads becomes one `OtherFact`, as it came. Only this is refused:

    UnreadableDelivery
    ├── NotJson          the body is not JSON, not even mended (see `mending`)
    ├── NotAnEnvelope    the body is JSON, but not an object
    └── TooManyItems     the body holds more than `MAX_ITEMS`

Shapes: `WebhookPayload` of the vendor's OpenAPI 1.8.7. Messages are read in `whapi_messages`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from msgspec import Raw

from app.api.mending import with_whole_characters, without_depths
from app.api.whapi_messages import (
    UNREADABLE,
    Message,
    Tolerant,
    micros,
    other_kind,
    person_of,
    read_message,
    read_text,
    word,
)
from app.conversation.facts import (
    DeleteFact,
    Delivery,
    EditFact,
    Fact,
    MessageFact,
    OtherFact,
    PresenceFact,
    RejectedFact,
    StatusFact,
)


class UnreadableDelivery(Exception):
    """A webhook body that holds no facts at all. The text never quotes the body."""


class NotJson(UnreadableDelivery):
    """The body is not JSON."""


class NotAnEnvelope(UnreadableDelivery):
    """The body is JSON, but not an object."""


class TooManyItems(UnreadableDelivery):
    """The body holds more items than one webhook may."""


MAX_ITEMS = 2_000
"""Items of one body; a collection that no bot reads counts as one.

Whapi sends one item a webhook as a rule, and a few dozen after it was offline. The most that
belongs together are the statuses of one message in a group: one for each of at most 1,024 members.
And 1 MiB holds no more than 2,000 messages, which take about 600 bytes each."""

MAX_REJECTED = 50
"""Items of one body that are rejected one by one; what is beyond is summed up."""

MAX_REJECTED_BYTES = 256 * 1024
"""Of what is summed up, this much is kept."""

_ABSENT = Raw()
"""Decodes as nothing, like null and like garbage."""


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    event: str | None = None
    method: str | None = None
    """What the settings call `event`; tolerated in webhooks."""


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


class _OneKind(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The commonest envelope: messages and nothing else."""

    messages: list[Message]
    event: _Event | None = None
    channel_id: str | None = None


class _Version(msgspec.Struct, gc=False):
    """What of a message may change besides its content."""

    status: str | None = None
    timestamp: int | float | str | None = None


class _Call(msgspec.Struct, gc=False):
    id: str | None = None
    status: str | None = None


_ENVELOPE = msgspec.json.Decoder(dict[str, Raw])
_ITEMS = msgspec.json.Decoder(list[Raw])
_ONE_KIND = msgspec.json.Decoder(_OneKind)
_STRING = msgspec.json.Decoder(str)
_EVENT = Tolerant(_Event)
_NO_EVENT = _Event()
_STATUS = Tolerant(_Status, "id", "status")
_PRESENCE = Tolerant(_Presence, "contact_id")
_CALL = Tolerant(_Call)
_VERSION = Tolerant(_Version)
_MESSAGE_UPDATE = Tolerant(_MessageUpdate)
_CHAT_UPDATE = Tolerant(_ChatUpdate)


def read(body: bytes, *, event: str | None = None, method: str | None = None) -> Delivery:
    """Return every fact of one webhook body, in the order of the body.

    `event` and `method` come from the URL (mode `path`) or, the latter, from the HTTP verb (mode
    `method`); they count where the envelope does not say (mode `body`). An envelope without a
    `channel_id` gives channel "". A message is given once, however many items show it.
    Raises `NotJson`, `NotAnEnvelope` or `TooManyItems`.
    """
    return _one_text(body, method) or _whatever(body, event, method)


def _one_text(body: bytes, method: str | None) -> Delivery | None:
    """Read the commonest body, one new text message, in one go; None for any other.

    What `_whatever` says of the same body is the same, and takes four times as long.
    """
    try:
        envelope = _ONE_KIND.decode(body)
    except UNREADABLE:
        return None
    said = envelope.event or _NO_EVENT
    verb = said.event or said.method or method or ""
    if len(envelope.messages) != 1 or verb.lower() not in {"post", ""}:
        return None
    fact = read_text(envelope.messages[0])
    return None if fact is None else Delivery("whapi", envelope.channel_id or "", (fact,))


def _whatever(body: bytes, event: str | None, method: str | None) -> Delivery:
    envelope, cut = _envelope(body)
    channel = _string(envelope.pop("channel_id", None))
    said = _event_of(envelope.pop("event", None))
    verb = word(said.event or said.method or method).lower() or "post"
    topic = word(said.type or event).lower()
    facts: list[Fact] = [RejectedFact(reason="nested too deeply", raw=part) for part in cut]
    rest: dict[str, Raw] = {}
    items = 0
    for name, value in envelope.items():
        kind = f"{topic or word(name).partition('_')[0].lower() or 'unknown'}.{verb}"
        collection = _list(value)
        if collection is None:
            _read_single(name, value, rest, facts)
        elif name in _READERS or name == "messages_removed":
            items += len(collection)
            _check_number(items)
            _read_items(name, collection, kind, facts)
        elif collection:
            items += 1
            _check_number(items)
            facts.append(OtherFact(kind=kind, raw=bytes(value)))
    if rest or not envelope:
        # Channel health, QR code, user: one fact for all that is no list, as it came.
        raw = msgspec.json.encode(rest) if envelope else body
        facts.append(OtherFact(kind=f"{topic or 'unknown'}.{verb}", raw=raw))
    if len(facts) > 1:
        facts = _summed_up(_once(facts))
    return Delivery("whapi", channel, tuple(facts))


def _envelope(body: bytes) -> tuple[dict[str, Raw], list[bytes]]:
    """Return the body's fields, and what had to be cut out of it to read them."""
    try:
        try:
            return _ENVELOPE.decode(body), []
        except msgspec.ValidationError:
            raise
        except UNREADABLE:
            mended, cut = without_depths(with_whole_characters(body))
            return _ENVELOPE.decode(mended), cut
    except msgspec.ValidationError:
        msg = "the body is not a JSON object: send the webhook envelope as Whapi does"
        raise NotAnEnvelope(msg) from None
    except UNREADABLE:
        msg = "the body is not JSON, or is cut short"
        raise NotJson(msg) from None


def _list(value: Raw) -> list[Raw] | None:
    try:
        return _ITEMS.decode(value)
    except UNREADABLE:
        return None


def _check_number(items: int) -> None:
    if items > MAX_ITEMS:
        msg = f"the body holds more than {MAX_ITEMS} items: send fewer in one webhook"
        raise TooManyItems(msg)


def _string(raw: Raw | None) -> str:
    try:
        return "" if raw is None else _STRING.decode(raw)
    except UNREADABLE:
        return ""


def _event_of(raw: Raw | None) -> _Event:
    try:
        return _Event() if raw is None else _EVENT.decode(raw)
    except UNREADABLE:
        return _Event()


def _summed_up(facts: Iterable[Fact]) -> list[Fact]:
    """Leave `MAX_REJECTED` items rejected one by one, and make one of all further ones."""
    kept: list[Fact] = []
    further: list[bytes] = []
    rejected = 0
    for fact in facts:
        if isinstance(fact, RejectedFact):
            rejected += 1
            if rejected > MAX_REJECTED:
                further.append(fact.raw)
                continue
        kept.append(fact)
    if further:
        raw = b"[%b]" % b",".join(further)
        reason = f"{len(further)} more items, {len(raw)} bytes"
        kept.append(RejectedFact(reason=reason, raw=raw[:MAX_REJECTED_BYTES]))
    return kept


def _once(facts: Iterable[Fact]) -> Iterable[Fact]:
    """Leave out messages that the same body has shown already."""
    seen: set[str] = set()
    for fact in facts:
        if isinstance(fact, MessageFact) or (isinstance(fact, OtherFact) and fact.id):
            if fact.id in seen:
                continue
            seen.add(fact.id)
        yield fact


# --- Collections ----------------------------------------------------------------------------------


def _read_items(name: str, items: list[Raw], kind: str, facts: list[Fact]) -> None:
    """Read a collection item by item; a bad one is rejected alone."""
    if name == "messages_removed":
        _read_removed(items, facts)
        return
    reader = _READERS[name]
    for item in items:
        try:
            facts.extend(reader(item, kind))
        except MemoryError:
            raise  # says nothing of the item
        except Exception as error:  # noqa: BLE001 - reading is pure: it would fail each time again
            facts.append(RejectedFact(reason=_reason(name, error), raw=bytes(item)))


def _read_single(name: str, value: Raw, rest: dict[str, Raw], facts: list[Fact]) -> None:
    """Read what is no list: a cleared chat, or something to be kept; null says nothing."""
    if bytes(value) == b"null":
        return
    if name == "messages_removed_all":
        facts.append(OtherFact(kind="messages.delete_all", raw=bytes(value)))
    elif name in _READERS or name == "messages_removed":
        facts.append(RejectedFact(reason=f"{name}: not a list", raw=bytes(value)))
    else:
        rest[name] = value


def _reason(name: str, error: Exception) -> str:
    """Say what is wrong with an item, in types and paths, never in values."""
    if isinstance(error, UnicodeDecodeError):
        return f"{name}: not UTF-8"
    if isinstance(error, RecursionError):
        return f"{name}: nested too deeply"
    if isinstance(error, UNREADABLE):
        return f"{name}: {error}"
    return f"{name}: {type(error).__name__}"  # a bug of ours, whose text may quote anything


def _messages(item: Raw, kind: str) -> tuple[Fact, ...]:
    fact = read_message(item, kind_of_rest=kind)
    if not kind.endswith(".put"):
        return (fact,)
    if isinstance(fact, OtherFact):  # an edit has its message's id: it is no duplicate of it
        return (OtherFact(kind=fact.kind, raw=fact.raw),)
    if isinstance(fact, MessageFact):
        return (EditFact(fact.id, fact),)
    return (fact,)


def _read_removed(items: list[Raw], facts: list[Fact]) -> None:
    """Read `messages_removed`: ids, taken back together."""
    ids: list[str] = []
    for item in items:
        if identifier := _string(item):
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
    given = _ENVELOPE.decode(item)
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
_READERS: dict[str, Callable[[Raw, str], tuple[Fact, ...]]] = {
    "messages": _messages,
    "messages_updates": _message_updates,
    "statuses": _statuses,
    "presences": _presences,
    "calls": _calls,
    "chats_updates": _chat_updates,
}
