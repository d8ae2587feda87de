"""Every kind of event, in every delivery mode: which facts a webhook body states."""

from __future__ import annotations

import msgspec
import pytest

from app.api import whapi_items
from app.api.mending import DEEPEST, with_whole_characters
from app.api.whapi import (
    MAX_ITEMS,
    MAX_REJECTED,
    MAX_REJECTED_BYTES,
    NotAnEnvelope,
    NotJson,
    TooManyItems,
    read,
)
from app.conversation.facts import (
    DeleteFact,
    EditFact,
    MessageFact,
    OtherFact,
    Person,
    PresenceFact,
    RejectedFact,
    StatusFact,
)
from tests.unit.api.bodies import (
    CHANNEL,
    CHAT,
    GROUP,
    LID,
    PHONE,
    Json,
    body,
    fact_of,
    facts_of,
    message,
    said,
)

PERSON = Person(phone=PHONE)
ID = "Pk3.vQz81mLwTs0-gA4TrQ"
STATUS = {"id": "Out.1-gD", "code": 4, "status": "read", "recipient_id": CHAT, "timestamp": "7"}


def text(words: str, **fields: object) -> Json:
    return message("text", {"body": words}, **fields)


# --- Messages ------------------------------------------------------------------------------------


def test_one_body_may_hold_many_messages_and_their_order_is_kept() -> None:
    delivery = read(body(messages=[text(str(n), id=f"n{n}-gA") for n in range(5)]))
    assert (delivery.gateway, delivery.channel) == ("whapi", CHANNEL)
    assert said(delivery) == ["0", "1", "2", "3", "4"]


def test_messages_put_are_edits_not_new_messages() -> None:
    fact = fact_of(text("On Monday"), verb="put")
    assert isinstance(fact, EditFact)
    assert (fact.id, fact.message.text) == (ID, "On Monday")


def test_an_edit_in_a_group_is_not_taken_for_the_message_again() -> None:
    fact = fact_of(text("On Monday", chat_id=GROUP), verb="put")
    assert isinstance(fact, OtherFact)
    assert (fact.kind, fact.id) == ("group_message", "")


def test_removed_messages_are_deletions() -> None:
    assert facts_of(verb="delete", messages_removed=["a-gA", "b-gB"]) == [
        DeleteFact(("a-gA", "b-gB"))
    ]


def test_a_cleared_chat_is_kept() -> None:
    assert facts_of(verb="delete", messages_removed_all=CHAT) == [
        OtherFact(kind="messages.delete_all", raw=f'"{CHAT}"'.encode())
    ]


def test_one_bad_item_is_rejected_and_its_neighbours_are_kept() -> None:
    items = [text("first", id="a-gA"), {"id": 5}, None, text("last", id="b-gB")]
    first, bad, null, last = facts_of(messages=items)
    assert isinstance(first, MessageFact)
    assert isinstance(last, MessageFact)
    assert isinstance(bad, RejectedFact)
    assert bad.raw == b'{"id":5}'
    assert isinstance(null, RejectedFact)


def test_what_is_not_utf_8_costs_a_field_or_at_most_its_item() -> None:
    good = msgspec.json.encode(text("good"))
    bad = msgspec.json.encode(text("bad", id="b-gB")).replace(b"bad", b"b\xff\xfe")
    whole = b'{"messages":[%b,%b],"channel_id":"X"}' % (bad, good)
    without_text, kept = read(whole).facts
    assert isinstance(without_text, MessageFact)
    assert (without_text.answerable, without_text.raw) == (False, bad)
    assert isinstance(kept, MessageFact)
    (rejected,) = read(b'{"messages":[{"id":"a\xff"}]}').facts
    assert isinstance(rejected, RejectedFact)
    assert rejected.reason == "messages: not UTF-8"


def test_a_removed_id_that_is_none_is_rejected_alone() -> None:
    facts = facts_of(verb="delete", messages_removed=["a-gA", 7, ""])
    assert [type(fact) for fact in facts] == [RejectedFact, RejectedFact, DeleteFact]


@pytest.mark.parametrize("value", [{}, 7, "text", True])
def test_a_collection_that_is_no_list_is_rejected(value: object) -> None:
    (fact,) = facts_of(messages=value)
    assert isinstance(fact, RejectedFact)
    assert fact.raw == msgspec.json.encode(value)


def test_an_empty_or_null_collection_states_nothing() -> None:
    assert facts_of(messages=[], statuses=None, messages_removed=None) == []


def test_a_message_shown_twice_in_one_body_is_given_once() -> None:
    chat = {"id": CHAT, "type": "contact", "last_message": text("Hello")}
    update = {"before_update": {}, "after_update": chat, "changes": ["last_message"]}
    facts = facts_of(messages=[text("Hello"), text("Hello")], chats_updates=[update])
    assert [type(fact) for fact in facts] == [MessageFact, OtherFact]


# --- Statuses, presences, calls ------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["post", "put"])
def test_statuses_are_mapped_by_their_names(verb: str) -> None:
    facts = facts_of("statuses", verb, statuses=[STATUS])
    assert facts == [StatusFact("Out.1-gD", "read", PERSON, 7_000_000)]


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"recipient_id": None}, StatusFact("Out.1-gD", "read", None, 7_000_000)),
        (
            {"recipient_id": f"{LID}@lid"},
            StatusFact("Out.1-gD", "read", Person(lid=LID), 7_000_000),
        ),
        ({"timestamp": 8}, StatusFact("Out.1-gD", "read", PERSON, 8_000_000)),
        ({"timestamp": None, "code": "x"}, StatusFact("Out.1-gD", "read", PERSON, 0)),
    ],
)
def test_statuses_may_lack_almost_everything(change: Json, fact: StatusFact) -> None:
    assert facts_of("statuses", statuses=[{**STATUS, **change}]) == [fact]


def test_a_status_in_a_group_belongs_to_nobody() -> None:
    (fact,) = facts_of("statuses", statuses=[{**STATUS, "recipient_id": GROUP}])
    assert isinstance(fact, OtherFact)
    assert fact.kind == "group_status"


@pytest.mark.parametrize("change", [{"id": None}, {"status": None}, {"status": "no word 1"}])
def test_a_status_without_id_or_name_is_rejected(change: Json) -> None:
    (fact,) = facts_of("statuses", statuses=[{**STATUS, **change}])
    assert isinstance(fact, RejectedFact)


@pytest.mark.parametrize("presence", ["online", "offline", "typing", "recording", "pending"])
@pytest.mark.parametrize("contact", [PHONE, CHAT])
def test_presences_name_somebody(contact: str, presence: str) -> None:
    facts = facts_of("presences", presences=[{"contact_id": contact, "status": presence}])
    assert facts == [PresenceFact(PERSON, presence)]


def test_presences_of_groups_and_without_status_are_kept() -> None:
    items = [{"contact_id": GROUP, "status": "typing"}, {"contact_id": PHONE, "last_seen": 1}]
    facts = facts_of("presences", presences=items)
    assert [fact.kind for fact in facts if isinstance(fact, OtherFact)] == [
        "group_presence",
        "presences.post",
    ]


def test_the_states_of_one_call_are_told_apart() -> None:
    calls = [{"id": "C1", "status": "ringing"}, {"id": "C1", "status": "missed"}, {"from": PHONE}]
    facts = facts_of("calls", calls=calls)
    assert [fact.id for fact in facts if isinstance(fact, OtherFact)] == [
        "C1:ringing",
        "C1:missed",
        "",
    ]


# --- What belongs to no person -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "verb", "collection", "item"),
    [
        ("chats", "post", "chats", {"id": CHAT, "type": "contact"}),
        ("chats", "put", "chats", {"id": CHAT, "type": "contact"}),
        ("chats", "delete", "chats_removed", CHAT),
        ("contacts", "post", "contacts", {"id": PHONE, "name": "Nerea"}),
        ("contacts", "patch", "contacts_updates", {"before_update": {}, "after_update": {}}),
        ("groups", "post", "groups", {"id": GROUP}),
        ("groups", "put", "groups_participants", {"group_id": GROUP, "action": "add"}),
        ("groups", "patch", "groups_updates", {"changes": ["name"]}),
        ("labels", "post", "labels", {"id": "1", "name": "Regulars", "color": "gold"}),
        ("labels", "delete", "labels_removed", "1"),
        ("service", "post", "errors", {"code": 500, "message": "x"}),
        ("tides", "post", "tides", {"height": 3}),
    ],
)
def test_kinds_that_belong_to_nobody_are_kept_as_they_came(
    topic: str, verb: str, collection: str, item: object
) -> None:
    facts = facts_of(topic, verb, **{collection: [item, item]})
    assert facts == [OtherFact(kind=f"{topic}.{verb}", raw=msgspec.json.encode([item, item]))]


@pytest.mark.parametrize(
    ("topic", "verb", "key", "value"),
    [
        ("channel", "post", "health", {"status": {"code": 4, "text": "AUTH"}}),
        ("channel", "post", "qr", {"status": "OK", "base64": "AAAA"}),
        ("users", "post", "user", {"id": PHONE, "name": "The Kayak Hut"}),
        ("users", "delete", "user", {"id": PHONE}),
        ("service", "post", "notice", "maintenance"),
    ],
)
def test_events_that_are_no_list_are_kept_under_their_name(
    topic: str, verb: str, key: str, value: object
) -> None:
    raw = msgspec.json.encode({key: value})
    assert facts_of(topic, verb, **{key: value}) == [OtherFact(kind=f"{topic}.{verb}", raw=raw)]


def test_an_envelope_that_states_nothing_is_kept_whole() -> None:
    assert facts_of("service") == [OtherFact(kind="service.post", raw=body("service"))]
    assert read(b"{}").facts == (OtherFact(kind="unknown.post", raw=b"{}"),)


def test_a_topic_that_is_no_plain_word_is_not_taken_for_a_kind() -> None:
    (fact,) = facts_of(f"call {PHONE}", "x y", **{f"to {PHONE}": [1]})
    assert isinstance(fact, OtherFact)
    assert fact.kind == "unknown.post"


# --- Delivery modes ------------------------------------------------------------------------------


def test_mode_path_names_event_and_method_in_the_url() -> None:
    bare = msgspec.json.encode({"messages": [text("Monday")], "channel_id": CHANNEL})
    (fact,) = read(bare, event="messages", method="put").facts
    assert isinstance(fact, EditFact)
    (label,) = read(b'{"labels":[1]}', event="labels", method="DELETE").facts
    assert isinstance(label, OtherFact)
    assert label.kind == "labels.delete"


def test_mode_method_takes_the_verb_and_the_envelopes_type() -> None:
    whole = {"messages": [text("Monday")], "event": {"type": "messages"}, "channel_id": CHANNEL}
    (fact,) = read(msgspec.json.encode(whole), method="PUT").facts
    assert isinstance(fact, EditFact)


def test_the_envelope_has_the_last_word() -> None:
    (fact,) = read(body(messages=[text("Hi")]), event="chats", method="PUT").facts
    assert isinstance(fact, MessageFact)


def test_the_settings_word_for_the_verb_is_understood() -> None:
    whole = {"labels": [1], "event": {"type": "labels", "method": "post", "event": None}}
    (fact,) = read(msgspec.json.encode(whole), method="PUT").facts
    assert isinstance(fact, OtherFact)
    assert fact.kind == "labels.post"


@pytest.mark.parametrize("event", [None, 7, [], "post", {"type": 7}])
def test_an_unreadable_event_is_made_up_for_by_the_collections_name(event: object) -> None:
    whole = msgspec.json.encode({"messages": [text("Hi")], "labels": [1], "event": event})
    message_, label = read(whole).facts
    assert isinstance(message_, MessageFact)
    assert isinstance(label, OtherFact)
    assert label.kind == "labels.post"


@pytest.mark.parametrize("channel", [b"", b',"channel_id":null', b',"channel_id":7'])
def test_a_body_that_names_no_channel_leaves_it_to_the_service(channel: bytes) -> None:
    assert read(b'{"messages":[]%b}' % channel).channel == ""


# --- What is no webhook --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw", [b"", b" ", b"hello", b'{"messages":[', b'{"a":nope}', b"\xff\xfe", b"<xml/>", b"{} {}"]
)
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(NotJson):
        read(raw)


def test_a_body_nested_beyond_reading_and_cut_short_is_refused() -> None:
    with pytest.raises(NotJson):
        read(b'{"messages":' + b"[" * 200_000)
    with pytest.raises(NotJson):
        read(b'{"messages":' + b'"' + b'\\"' * 400_000)


# --- Mended ---------------------------------------------------------------------------------------


def test_half_an_emoji_harms_neither_its_message_nor_the_neighbours() -> None:
    good, bad = (msgspec.json.encode(text(words, id=words)) for words in ("good", "bad"))
    bad = bad.replace(b'"body":"bad"', rb'"body":"oops \ud83d, \ud83d\ude00, \\ud83d"')
    delivery = read(b'{"messages":[%b,%b],"channel_id":"X"}' % (bad, good))
    assert said(delivery) == ["oops \ufffd, \U0001f600, \\ud83d", "good"]


@pytest.mark.parametrize(
    ("escaped", "mended"),
    [
        (rb"\ud83d", rb"\ufffd"),
        (rb"\uDE00\uD83D", rb"\ufffd\ufffd"),
        (rb"\ud83d\ud83d\ude00", rb"\ufffd\ud83d\ude00"),
        (rb"\ud83d\ude00\ude00", rb"\ud83d\ude00\ufffd"),
        (rb"\\\ud83d", rb"\\\ufffd"),
        (rb"\\ud83d", rb"\\ud83d"),
        (rb"\\\\ud83d", rb"\\\\ud83d"),
        (rb"\ud7ff\ue000\n\"", rb"\ud7ff\ue000\n\""),
    ],
)
def test_only_lone_surrogates_are_replaced(escaped: bytes, mended: bytes) -> None:
    assert with_whole_characters(escaped) == mended
    msgspec.json.decode(b'"%b"' % mended)


@pytest.mark.parametrize("depth", [DEEPEST + 5, 900, 100_000])
def test_an_item_nested_too_deeply_harms_no_neighbour_and_is_not_lost(depth: int) -> None:
    deep = b'{"]":' * depth + b"1" + b"}" * depth
    good = msgspec.json.encode(text("good"))
    facts = read(b'{"messages":[%b,%b],"statuses":[%b]}' % (deep, good, deep)).facts
    assert [fact.text for fact in facts if isinstance(fact, MessageFact)] == ["good"]
    rejected = [fact for fact in facts if isinstance(fact, RejectedFact)]
    assert len(rejected) == len(facts) - 1
    assert [fact.raw for fact in rejected] == [deep, deep]


@pytest.mark.parametrize("depth", [50, 600, 3000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"x":', b"}")])
def test_an_item_nested_too_deeply_is_one_item(depth: int, opening: bytes, closing: bytes) -> None:
    deep = opening * depth + b"1" + closing * depth
    (fact,) = read(b'{"messages":[%b]}' % deep).facts
    assert isinstance(fact, RejectedFact)
    assert fact.raw == deep


def test_a_message_is_taken_without_what_is_nested_too_deeply_in_it() -> None:
    deep = b"[" * 3000 + b"]" * 3000
    item = msgspec.json.encode(text("hola"))[:-1] + b',"x":%b}' % deep
    rejected, fact = read(b'{"messages":[%b]}' % item).facts
    assert isinstance(fact, MessageFact)
    assert isinstance(rejected, RejectedFact)
    assert rejected.reason == "nested too deeply"
    assert rejected.raw in deep
    assert read(b'{"x":%b}' % deep).facts == (OtherFact(kind="x.post", raw=deep),)


# --- Bounded --------------------------------------------------------------------------------------


def test_a_collection_that_nobody_reads_is_one_fact_however_long() -> None:
    zeros = b"[" + b",".join([b"0"] * 400_000) + b"]"
    assert read(b'{"x":%b}' % zeros).facts == (OtherFact(kind="x.post", raw=zeros),)


@pytest.mark.parametrize(
    "collections",
    [
        {"statuses": [STATUS] * (MAX_ITEMS + 1)},
        {"messages_removed": ["a-gA"] * (MAX_ITEMS + 1)},
        {"messages": [0] * MAX_ITEMS, "calls": [0]},
        {f"x{number}": [0] for number in range(MAX_ITEMS + 1)},
    ],
)
def test_more_items_than_one_webhook_may_hold_are_refused(collections: Json) -> None:
    with pytest.raises(TooManyItems, match="2000 items"):
        read(msgspec.json.encode(collections))


def test_as_many_items_as_one_webhook_may_hold_are_read() -> None:
    assert len(facts_of(statuses=[STATUS] * MAX_ITEMS)) == MAX_ITEMS


def test_rejected_items_beyond_some_are_summed_up_and_their_neighbours_kept() -> None:
    items = [*range(MAX_ITEMS // 2), text("good"), *["x" * 700] * (MAX_ITEMS // 2 - 1)]
    facts = facts_of(messages=items)
    assert len(facts) == MAX_REJECTED + 2
    assert isinstance(facts[-2], MessageFact)
    rest = facts[-1]
    assert isinstance(rest, RejectedFact)
    assert rest.reason.startswith("1949 more items")
    assert rest.raw.startswith(b"[50,51,")
    assert len(rest.raw) == MAX_REJECTED_BYTES


def test_a_bug_in_reading_one_item_rejects_it_and_quotes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def bug(raw: msgspec.Raw, **_: str) -> MessageFact:
        raise AttributeError(bytes(raw))

    monkeypatch.setattr(whapi_items, "read_message", bug)
    rejected, status = facts_of(messages=[text("secret")], statuses=[STATUS])
    assert isinstance(rejected, RejectedFact)
    assert rejected.reason == "messages: AttributeError"
    assert isinstance(status, StatusFact)


@pytest.mark.parametrize("raw", [b"[]", b"null", b"7", b'"x"', b"true"])
def test_json_that_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(NotAnEnvelope):
        read(raw)
