"""Whatever arrives: facts or a documented error, nothing lost, nothing quoted."""

from __future__ import annotations

import copy

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from app.api.whapi import UnreadableDelivery, read
from app.conversation.facts import (
    DeleteFact,
    EditFact,
    MessageFact,
    OtherFact,
    PresenceFact,
    RejectedFact,
    StatusFact,
)
from tests.unit.api.bodies import CHAT, Json, body, message

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
COLLECTIONS = st.sampled_from(
    (
        "messages",
        "messages_updates",
        "messages_removed",
        "messages_removed_all",
        "statuses",
        "presences",
        "calls",
        "chats",
        "chats_updates",
        "chats_removed",
        "contacts",
        "labels_removed",
        "health",
        "event",
        "channel_id",
    )
)
KINDS = st.sampled_from(
    (
        "text",
        "image",
        "voice",
        "document",
        "location",
        "contact_list",
        "reply",
        "poll",
        "hsm",
        "order",
        "action",
        "interactive",
        "carousel",
        "unknown",
        "hologram",
    )
)
NAMES = st.sampled_from(
    (
        "id",
        "type",
        "chat_id",
        "from",
        "from_me",
        "timestamp",
        "source",
        "text",
        "context",
        "status",
        "target",
        "edited_content",
        "before_update",
        "after_update",
        "trigger",
        "changes",
        "last_message",
        "contact_id",
        "recipient_id",
    )
)
ITEMS = st.dictionaries(NAMES, JSON, max_size=6) | JSON
WHOLE = [
    body(messages=[message()]),
    body(messages=[message("voice", {"id": "ogg-1", "mime_type": "audio/ogg"})]),
    body("chats", "patch", chats_updates=[{"after_update": {"last_message": message()}}]),
    body("statuses", statuses=[{"id": "a-gA", "status": "read", "recipient_id": CHAT}]),
]
FACTS = (
    MessageFact,
    EditFact,
    DeleteFact,
    StatusFact,
    PresenceFact,
    OtherFact,
    RejectedFact,
)


def check(raw: bytes) -> None:
    """A body gives facts that can be encoded, or one of the documented errors."""
    try:
        delivery = read(raw)
    except UnreadableDelivery:
        return
    assert all(isinstance(fact, FACTS) for fact in delivery.facts)
    assert msgspec.msgpack.encode(delivery)


@given(st.binary(max_size=200))
def test_any_bytes(raw: bytes) -> None:
    check(raw)


@given(JSON)
def test_any_json(value: object) -> None:
    check(msgspec.json.encode(value))


@given(st.dictionaries(COLLECTIONS, st.lists(ITEMS, max_size=4) | JSON, max_size=4))
def test_any_items_in_any_collection(envelope: Json) -> None:
    check(msgspec.json.encode(envelope))


@given(KINDS, JSON, NAMES, JSON)
def test_any_content_under_any_type(kind: str, content: object, name: str, value: object) -> None:
    check(body(messages=[{**message(kind, content), name: value}]))


@given(KINDS, JSON)
def test_any_content_leaves_a_message_that_is_in_order_a_message(
    kind: str, content: object
) -> None:
    whole = {**message(), "type": kind, kind: content}
    facts = read(body(messages=[whole])).facts
    assert isinstance(facts[0], MessageFact | EditFact | DeleteFact)


@given(st.sampled_from(WHOLE), st.data())
def test_a_body_cut_anywhere_or_with_any_byte_changed(raw: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(raw) - 1))
    check(raw[:at])
    changed = bytearray(raw)
    changed[at] = data.draw(st.integers(0, 255))
    check(bytes(changed))


@given(st.lists(JSON, max_size=4), st.lists(JSON, max_size=4))
def test_good_items_survive_any_neighbours(before: list[object], after: list[object]) -> None:
    good = read(body(messages=[message()])).facts[0]
    facts = read(body(messages=[*before, copy.deepcopy(message()), *after])).facts
    assert good in facts
    assert len(facts) == len(before) + 1 + len(after)
