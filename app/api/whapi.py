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

from collections.abc import Iterable

import msgspec
from msgspec import Raw

from app.api.mending import Holes, with_whole_characters, without_depths
from app.api.whapi_items import OBJECT, READERS, read_removed, string_of
from app.api.whapi_messages import (
    UNREADABLE,
    Message,
    Tolerant,
    read_text,
    word,
)
from app.conversation.facts import (
    Delivery,
    Fact,
    MessageFact,
    OtherFact,
    RejectedFact,
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


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    event: str | None = None
    method: str | None = None
    """What the settings call `event`; tolerated in webhooks."""


class _OneKind(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The commonest envelope: messages and nothing else."""

    messages: list[Message]
    event: _Event | None = None
    channel_id: str | None = None


_ITEMS = msgspec.json.Decoder(list[Raw])
_ONE_KIND = msgspec.json.Decoder(_OneKind)
_EVENT = Tolerant(_Event)
_NO_EVENT = _Event()


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
    envelope, holes = _envelope(body)
    channel = string_of(envelope.pop("channel_id", None))
    said = _event_of(envelope.pop("event", None))
    verb = word(said.event or said.method or method).lower() or "post"
    topic = word(said.type or event).lower()
    facts: list[Fact] = []
    rest: dict[str, Raw] = {}
    items = 0
    for name, value in envelope.items():
        kind = f"{topic or word(name).partition('_')[0].lower() or 'unknown'}.{verb}"
        collection = _list(value)
        if collection is None:
            _read_single(name, value, rest, facts)
        elif name in READERS or name == "messages_removed":
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
    if holes is not None:
        facts = _filled(facts, holes)
    if len(facts) > 1:
        facts = _summed_up(_once(facts))
    return Delivery("whapi", channel, tuple(facts))


def _filled(facts: Iterable[Fact], holes: Holes) -> list[Fact]:
    """Give what is kept as it came its depths again; what else was cut is rejected by itself.

    So an item that is nested too deeply is one fact, unless it can be read without its depths.
    """
    whole = [_whole(fact, holes) for fact in facts]
    return [RejectedFact(reason="nested too deeply", raw=part) for part in holes.left] + whole


def _whole(fact: Fact, holes: Holes) -> Fact:
    if not isinstance(fact, RejectedFact | OtherFact):
        return fact
    raw = holes.fill(fact.raw)
    if raw == fact.raw:
        return fact
    if isinstance(fact, OtherFact):
        return msgspec.structs.replace(fact, raw=raw)
    name = fact.reason.partition(":")[0]
    return RejectedFact(reason=f"{name}: nested too deeply", raw=raw)


def _envelope(body: bytes) -> tuple[dict[str, Raw], Holes | None]:
    """Return the body's fields, and what had to be cut out of it to read them."""
    try:
        try:
            return OBJECT.decode(body), None
        except msgspec.ValidationError:
            raise
        except UNREADABLE:
            mended, holes = without_depths(with_whole_characters(body))
            return OBJECT.decode(mended), holes
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
        read_removed(items, facts)
        return
    reader = READERS[name]
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
    elif name in READERS or name == "messages_removed":
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
