"""What a message of each type says, who wrote it, and whether it wants an answer."""

from __future__ import annotations

import msgspec
import pytest

from app.aggregates.events import Media
from app.conversation.facts import (
    DeleteFact,
    EditFact,
    MessageFact,
    OtherFact,
    Person,
    RejectedFact,
)
from tests.unit.api.bodies import (
    BOT,
    CHAT,
    GROUP,
    LID,
    PHONE,
    SENT_AT,
    SENT_AT_MICROS,
    Json,
    fact_of,
    message,
)

FILE: Json = {
    "id": "jpeg-00ff10aa20bb",
    "mime_type": "image/jpeg",
    "file_size": 48_213,
    "sha256": "3q2+7w==",
    "link": "https://files.invalid/jpeg-00ff10aa20bb",
    "timestamp": SENT_AT,
}
REPLY = {"type": "buttons_reply", "buttons_reply": {"id": "ButtonsV3:book", "title": "Book it"}}
CHOICE = {
    "type": "list_reply",
    "list_reply": {"id": "ListV3:two", "title": "Two seats", "description": "The red one"},
}
SAYS: list[tuple[str, Json, str]] = [
    ("text", {"body": "See you at nine"}, "See you at nine"),
    ("link_preview", {"body": "See kayak.invalid", "title": "Kayaks"}, "See kayak.invalid"),
    ("link_preview", {"title": "Kayaks", "description": "By the hour"}, "Kayaks\nBy the hour"),
    ("image", {**FILE, "caption": "Like this one"}, "Like this one"),
    ("video", {**FILE, "caption": "How to steer"}, "How to steer"),
    ("short", {**FILE, "caption": "Splash"}, "Splash"),
    ("gif", {**FILE, "caption": "Ha"}, "Ha"),
    ("document", {**FILE, "caption": "The contract"}, "The contract"),
    ("documentWithCaption", {**FILE, "caption": "Signed"}, "Signed"),
    ("audio", FILE, ""),
    ("voice", FILE, ""),
    ("sticker", FILE, ""),
    ("location", {"latitude": 43.5, "longitude": -5.25, "name": "Pier"}, "43.5,-5.25 Pier"),
    ("live_location", {"latitude": 43.5, "longitude": -5, "caption": "Soon"}, "43.5,-5 Soon"),
    ("contact", {"name": "Ivo Brandt", "vcard": "BEGIN:VCARD"}, "Ivo Brandt"),
    ("contact", {"vcard": "BEGIN:VCARD\r\nFN;CHARSET=UTF-8:Ivo\r\nEND:VCARD"}, "Ivo"),
    ("contact_list", {"list": [{"name": "Ivo"}, {"name": "Ada"}]}, "Ivo\nAda"),
    ("group_invite", {"body": "Join us", "invite_code": "abc"}, "Join us"),
    ("newsletter_invite", {"title": "Tides of the week"}, "Tides of the week"),
    ("admin_invite", {"body": "", "newsletter_name": "Tides"}, "Tides"),
    ("product", {"catalog_id": BOT, "product_id": "kayak-2"}, "kayak-2"),
    ("catalog", {"title": "Our boats"}, "Our boats"),
    ("interactive", {"header": {"text": "Hi"}, "body": {"text": "Which?"}}, "Hi\nWhich?"),
    ("reply", REPLY, "Book it"),
    ("reply", CHOICE, "Two seats\nThe red one"),
    ("reply", {"buttons_reply": {"id": "ButtonsV3:book"}}, "book"),
    ("reply", {"list_reply": {"id": "ListV3:two", "title": ""}}, "two"),
    ("poll", {"title": "Which day?", "options": ["Sat", "Sun"]}, "Which day?\n- Sat\n- Sun"),
    ("hsm", {"header": {"text": {"body": "Hi"}}, "body": "Confirm?"}, "Hi\nConfirm?"),
    ("order", {"title": "A kayak", "total_price": 60, "currency": "EUR"}, "A kayak\n60 EUR"),
    ("event", {"name": "Regatta", "description": "At noon"}, "Regatta\nAt noon"),
    ("buttons", {"text": "Which day?", "footer": "Choose"}, "Which day?\nChoose"),
    ("list", {"header": "Boats", "body": "Choose one"}, "Boats\nChoose one"),
    ("carousel", {"body": {"text": "Boats"}, "cards": [{"text": "Red"}]}, "Boats\nRed"),
]  # fmt: skip
SILENT = ("system", "call", "unknown", "pin", "story")
TYPES = {
    *(
        "text",
        "image",
        "video",
        "gif",
        "audio",
        "voice",
        "short",
        "document",
        "documentWithCaption",
    ),
    *("link_preview", "location", "live_location", "contact", "contact_list", "sticker", "system"),
    *("call", "unknown", "action", "group_invite", "newsletter_invite", "admin_invite", "product"),
    *("catalog", "interactive", "reply", "poll", "hsm", "order", "story", "event", "buttons"),
    *("list", "pin", "carousel"),
}
"""`MessageType` of the vendor's OpenAPI 1.8.7."""


def read_one(*args: object, **fields: object) -> MessageFact:
    fact = fact_of(message(*args, **fields))  # type: ignore[arg-type]
    assert isinstance(fact, MessageFact)
    return fact


def test_a_text_is_read_whole() -> None:
    assert read_one(context={"quoted_id": "Zz9.earlier-gB"}) == MessageFact(
        id="Pk3.vQz81mLwTs0-gA4TrQ",
        person=Person(phone=PHONE),
        chat_id=CHAT,
        at=SENT_AT_MICROS,
        kind="text",
        origin="person",
        text="Is the blue kayak free on Sunday?",
        name="Nerea Quill",
        quoted_id="Zz9.earlier-gB",
    )


@pytest.mark.parametrize(("kind", "content", "text"), SAYS)
def test_each_type_says_something_that_can_be_answered(kind: str, content: Json, text: str) -> None:
    fact = read_one(kind, content)
    assert (fact.kind, fact.text, fact.answerable) == (kind, text, True)


@pytest.mark.parametrize("kind", SILENT)
def test_noise_is_kept_and_never_answered(kind: str) -> None:
    fact = read_one(kind, {"body": "Messages are end-to-end encrypted"}, source="system")
    assert not fact.answerable
    assert kind.encode() in fact.raw


def test_whatever_the_system_wrote_is_not_answered() -> None:
    assert not read_one(source="system").answerable


def test_a_type_of_tomorrow_is_kept_as_it_came_and_answered_if_it_says_something() -> None:
    silent = read_one("hologram", {"depth": 3})
    assert (silent.kind, silent.text, silent.answerable) == ("hologram", "", False)
    assert msgspec.json.decode(silent.raw) == message("hologram", {"depth": 3})
    spoken = read_one("hologram", {"caption": "Look around"})
    assert (spoken.text, spoken.answerable) == ("Look around", True)
    assert spoken.raw


def test_a_type_that_is_no_plain_word_is_not_taken_for_a_kind() -> None:
    assert read_one("call me at 15550100042", {"body": "x"}).kind == "unknown"


@pytest.mark.parametrize("kind", ["image", "video", "audio", "voice", "document", "sticker"])
def test_media_are_read_with_and_without_a_link(kind: str) -> None:
    fact = read_one(kind, {**FILE, "seconds": 3, "file_name": "a.bin"})
    assert fact.media == Media(
        id="jpeg-00ff10aa20bb",
        mime="image/jpeg",
        size=48_213,
        sha256="3q2+7w==",
        link="https://files.invalid/jpeg-00ff10aa20bb",
        file_name="a.bin",
        seconds=3,
    )
    bare = read_one(kind, {"id": "ogg-77", "mime_type": "audio/ogg"})
    assert bare.media == Media(id="ogg-77", mime="audio/ogg")
    assert bare.answerable


def test_media_that_name_no_file_are_kept_as_they_came() -> None:
    fact = read_one("image", {"preview": "AAAA"})
    assert (fact.media, fact.answerable) == (None, False)
    assert b"AAAA" in fact.raw


def test_what_text_and_media_do_not_say_is_in_the_raw_item() -> None:
    assert b"ButtonsV3:book" in read_one("reply", REPLY).raw
    assert read_one("image", FILE).raw == b""
    assert read_one().raw == b""


# --- Who wrote -----------------------------------------------------------------------------------


def test_our_own_send_is_an_echo_and_a_human_with_the_phone_is_not() -> None:
    echo = read_one(from_me=True, source="api", **{"from": BOT})
    human = read_one(from_me=True, source="web", chat_name="Nerea", **{"from": BOT})
    assert (echo.origin, human.origin) == ("bot", "human")
    assert human.name == "Nerea"
    assert human.person == Person(phone=PHONE)


@pytest.mark.parametrize("source", ["mobile", "web", "business_api", "unknown", None])
def test_only_the_api_is_the_bot(source: str | None) -> None:
    assert read_one(from_me=True, source=source).origin == "human"


@pytest.mark.parametrize(
    ("fields", "person"),
    [
        ({"chat_id": CHAT, "from": PHONE}, Person(phone=PHONE)),
        ({"chat_id": f"{PHONE}:7@s.whatsapp.net"}, Person(phone=PHONE)),
        ({"chat_id": f"{PHONE}@c.us"}, Person(phone=PHONE)),
        ({"chat_id": PHONE}, Person(phone=PHONE)),
        ({"chat_id": f"{LID}@lid", "from": PHONE}, Person(phone=PHONE, lid=LID)),
        ({"chat_id": f"{LID}@lid", "from": CHAT}, Person(phone=PHONE, lid=LID)),
        ({"chat_id": f"{LID}@lid", "from": LID}, Person(lid=LID)),
        ({"chat_id": f"{LID}@lid", "from": f"{LID}@lid"}, Person(lid=LID)),
        ({"chat_id": f"{LID}@lid", "from": None}, Person(lid=LID)),
        ({"chat_id": CHAT, "from": f"{LID}@lid"}, Person(phone=PHONE, lid=LID)),
    ],
)
def test_phone_and_lid_lead_to_one_person(fields: dict[str, object], person: Person) -> None:
    assert read_one(**fields).person == person


def test_the_bots_own_number_is_never_taken_for_the_persons() -> None:
    fact = read_one(from_me=True, chat_id=f"{LID}@lid", **{"from": BOT})
    assert fact.person == Person(lid=LID)


@pytest.mark.parametrize(
    ("chat", "kind"),
    [
        (GROUP, "group_message"),
        ("120363000000000777@newsletter", "newsletter_message"),
        ("status@broadcast", "broadcast_message"),
        ("stories", "broadcast_message"),
        ("0@s.whatsapp.net", "messages.post"),
        ("somebody@elsewhere", "messages.post"),
        ("", "messages.post"),
    ],
)
def test_what_is_no_one_to_one_chat_is_kept_and_belongs_to_nobody(chat: str, kind: str) -> None:
    fact = fact_of(message(chat_id=chat))
    assert isinstance(fact, OtherFact)
    assert (fact.kind, fact.id) == (kind, "Pk3.vQz81mLwTs0-gA4TrQ")
    assert b"blue kayak" in fact.raw


# --- When ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stamp", "at"),
    [
        (SENT_AT, SENT_AT_MICROS),
        pytest.param(str(SENT_AT), SENT_AT_MICROS, id="text"),
        (SENT_AT + 0.25, SENT_AT_MICROS + 250_000),
        (SENT_AT * 1000 + 7, SENT_AT_MICROS + 7_000),
        (str(SENT_AT * 1000), SENT_AT_MICROS),
        (None, 0),
        ("", 0),
        ("yesterday", 0),
        ("nan", 0),
        ("inf", 0),
        (-5, 0),
        (0, 0),
        (10**17, 0),
        (True, 0),
        ([1], 0),
    ],
)
def test_times_are_seconds_or_milliseconds_and_a_bad_one_costs_nothing(
    stamp: object, at: int
) -> None:
    fact = read_one(timestamp=stamp)
    assert (fact.at, fact.text) == (at, "Is the blue kayak free on Sunday?")


# --- Actions -------------------------------------------------------------------------------------


def action(**fields: object) -> Json:
    return message("action", {"target": "Qq1.first-gC", **fields})


@pytest.mark.parametrize("kind", ["edit", "edited"])
@pytest.mark.parametrize("content", [{"body": "On Monday"}, {"text": {"body": "On Monday"}}])
def test_an_edit_holds_the_new_state_under_the_originals_id(kind: str, content: Json) -> None:
    fact = fact_of(action(type=kind, edited_type="text", edited_content=content))
    assert isinstance(fact, EditFact)
    assert fact.id == fact.message.id == "Qq1.first-gC"
    assert (fact.message.kind, fact.message.text) == ("text", "On Monday")


def test_an_edited_caption_keeps_its_file() -> None:
    content = {**FILE, "caption": "Rather this"}
    fact = fact_of(action(type="edit", edited_type="image", edited_content=content))
    assert isinstance(fact, EditFact)
    assert (fact.message.text, fact.message.media is not None) == ("Rather this", True)


def test_a_deletion_names_message_and_person() -> None:
    assert fact_of(action(type="delete")) == DeleteFact(("Qq1.first-gC",), Person(phone=PHONE))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"type": "reaction", "emoji": "👍"}, "👍"),
        ({"type": "reaction", "emoji": ""}, ""),
        ({"type": "vote", "votes": ["Sat", "Sun"]}, "Sat\nSun"),
        ({"type": "event_response", "event_response": {"response": "GOING"}}, "GOING"),
        ({"type": "pin"}, ""),
        ({"type": "unpin"}, ""),
        ({"type": "ephemeral", "ephemeral": 86_400, "target": CHAT}, ""),
        ({"type": "somersault"}, ""),
    ],
)
def test_reactions_and_votes_are_recorded_and_never_answered(fields: Json, text: str) -> None:
    fact = fact_of(action(**fields))
    assert isinstance(fact, MessageFact)
    assert (fact.kind, fact.text, fact.answerable) == (fields["type"], text, False)
    assert fact.quoted_id == ("" if "@" in fields.get("target", "") else "Qq1.first-gC")
    assert fact.raw


def test_a_comment_says_something() -> None:
    fact = fact_of(action(type="comment", comment="And on Monday?"))
    assert isinstance(fact, MessageFact)
    assert (fact.text, fact.answerable) == ("And on Monday?", True)


@pytest.mark.parametrize("fields", [{"type": "edit"}, {"type": "delete"}, {"type": 7}, {}])
def test_an_action_that_names_nothing_is_kept_and_not_answered(fields: Json) -> None:
    fact = fact_of(message("action", {**fields, "edited_content": {"body": "x"}}))
    assert isinstance(fact, MessageFact)
    assert not fact.answerable
    assert fact.raw


# --- Bad items -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        {"from_name": 7},
        {"from_name": None, "chat_name": {"deep": []}},
        {"context": "none"},
        {"context": {"quoted_id": 3}},
        {"timestamp": {"low": 1}},
        {"source": 9, "labels": "x", "reactions": 1, "whatever": [None]},
    ],
)
def test_a_field_of_a_wrong_type_costs_that_field_and_never_the_message(broken: Json) -> None:
    fact = read_one(**broken)
    assert (fact.text, fact.answerable) == ("Is the blue kayak free on Sunday?", True)


@pytest.mark.parametrize(
    "broken",
    [
        {"id": None},
        {"id": 12},
        {"id": ""},
        {"chat_id": None},
        {"chat_id": 15550100042},
        {"from_me": "yes"},
    ],
)
def test_a_message_that_cannot_be_placed_is_rejected_as_it_came(broken: Json) -> None:
    fact = fact_of(message(**broken))
    assert isinstance(fact, RejectedFact)
    assert b"blue kayak" in fact.raw
    assert PHONE not in fact.reason
    assert "kayak" not in fact.reason


def test_every_type_of_the_vendors_specification_is_stated_here() -> None:
    stated = {kind for kind, _, _ in SAYS} | set(SILENT) | {"action"}
    assert stated == TYPES
