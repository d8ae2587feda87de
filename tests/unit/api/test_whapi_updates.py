"""What changed: a message or a chat before and after, and what that makes of it."""

from __future__ import annotations

import pytest

from app.conversation.facts import (
    DeleteFact,
    EditFact,
    MessageFact,
    OtherFact,
    Person,
    StatusFact,
)
from tests.unit.api.bodies import (
    CHAT,
    GROUP,
    PHONE,
    SENT_AT,
    SENT_AT_MICROS,
    Json,
    fact_of,
    facts_of,
    message,
)

PERSON = Person(phone=PHONE)
ID = "Pk3.vQz81mLwTs0-gA4TrQ"
ACTION = {"target": ID, "type": "reaction", "emoji": "🛶"}


def text(words: str, **fields: object) -> Json:
    return message("text", {"body": words}, **fields)


# --- Updates of messages -------------------------------------------------------------------------


def updated(before: object, after: object, **fields: object) -> list[object]:
    update = {"id": ID, "before_update": before, "after_update": after, **fields}
    return list(facts_of(verb="patch", messages_updates=[update]))


def test_a_changed_text_is_an_edit_at_the_time_of_its_trigger() -> None:
    trigger = message("action", {"target": ID, "type": "edit"}, id="t-gT", timestamp=SENT_AT + 9)
    (fact,) = updated(text("Sunday"), text("Monday"), trigger=trigger, changes=["text"])
    assert isinstance(fact, EditFact)
    assert (fact.id, fact.message.text) == (ID, "Monday")
    assert fact.message.at == SENT_AT_MICROS + 9_000_000


def test_a_changed_status_is_a_status() -> None:
    before, after = text("Hi", status="sent"), text("Hi", status="delivered")
    assert updated(before, after) == [StatusFact(ID, "delivered", PERSON, 0)]
    first, rest = updated(before, after, changes=["status", "labels"])
    assert (type(first), type(rest)) == (StatusFact, OtherFact)


def test_a_files_new_link_is_no_edit() -> None:
    before = message("image", {"id": "jpeg-1"})
    after = message("image", {"id": "jpeg-1", "link": "https://files.invalid/jpeg-1"})
    (fact,) = updated(before, after, changes=["image"])
    assert isinstance(fact, OtherFact)


def test_a_status_needs_no_more_than_the_changed_fields() -> None:
    assert updated({"status": "sent"}, {"status": "read"}) == [StatusFact(ID, "read", None, 0)]


def test_a_message_that_becomes_deleted_is_a_deletion() -> None:
    before, after = text("Hi", status="read"), text("Hi", status="deleted")
    assert updated(before, after) == [DeleteFact((ID,), PERSON)]
    trigger = message("action", {"target": ID, "type": "delete"}, id="t-gT")
    assert updated(text("Hi"), text(""), trigger=trigger) == [DeleteFact((ID,), PERSON)]


def test_a_reaction_is_a_message_of_its_own() -> None:
    trigger = message("action", ACTION, id="t-gT")
    (fact,) = updated(text("Hi"), text("Hi", reactions=[{"emoji": "🛶"}]), trigger=trigger)
    assert isinstance(fact, MessageFact)
    assert (fact.id, fact.quoted_id, fact.answerable) == ("t-gT", ID, False)


def test_an_edit_that_cannot_be_compared_is_read_from_its_trigger() -> None:
    content = {"target": ID, "type": "edit", "edited_content": {"body": "Monday"}}
    (fact,) = updated(None, None, trigger=message("action", content, id="t-gT"))
    assert isinstance(fact, EditFact)
    assert fact.message.text == "Monday"


@pytest.mark.parametrize("before", [text("Hi"), None, 7])
def test_any_other_update_is_kept_as_it_came(before: object) -> None:
    (fact,) = updated(before, text("Hi", labels=[{"id": "1"}]), changes=["labels"])
    assert isinstance(fact, OtherFact)
    assert fact.kind == "messages.patch"


# --- Chats ---------------------------------------------------------------------------------------


def chat_updated(before: Json, after: Json) -> list[object]:
    chat = {"id": CHAT, "type": "contact", "name": "Nerea"}
    update = {"before_update": {**chat, **before}, "after_update": {**chat, **after}}
    return list(facts_of("chats", "patch", chats_updates=[{**update, "changes": ["x"]}]))


def test_a_chats_newest_message_is_a_message_like_any_other() -> None:
    fact, rest = chat_updated(
        {"last_message": text("Earlier", id="old-gA")}, {"last_message": text("Hello")}
    )
    assert fact == fact_of(text("Hello"))
    assert isinstance(rest, OtherFact)
    assert rest.kind == "chats.patch"
    assert b"Nerea" in rest.raw


def test_a_persons_words_are_not_kept_a_second_time_with_the_chat() -> None:
    for fact in chat_updated({"last_message": text("Hi", id="o-gA")}, {"last_message": text("Ho")}):
        if isinstance(fact, OtherFact):
            assert b"Hi" not in fact.raw
            assert b"Ho" not in fact.raw
            assert b"after_update" in fact.raw


def test_a_chat_that_shows_the_same_message_again_states_no_message() -> None:
    (fact,) = chat_updated({"last_message": text("Hi")}, {"last_message": text("Hi"), "unread": 0})
    assert isinstance(fact, OtherFact)


def test_a_chat_shows_what_became_of_its_newest_message() -> None:
    edited, _ = chat_updated({"last_message": text("Hi")}, {"last_message": text("Ho")})
    assert isinstance(edited, EditFact)
    seen, _ = chat_updated(
        {"last_message": text("Hi", status="sent")}, {"last_message": text("Hi", status="read")}
    )
    assert isinstance(seen, StatusFact)


def test_a_groups_newest_message_belongs_to_nobody() -> None:
    facts = chat_updated({}, {"last_message": text("Hi", chat_id=GROUP)})
    assert [fact.kind for fact in facts if isinstance(fact, OtherFact)] == [
        "group_message",
        "chats.patch",
    ]


def test_a_chat_update_without_a_message_is_kept_as_it_came() -> None:
    (fact,) = chat_updated({"unread": 1}, {"unread": 0, "last_message": "garbage"})
    assert isinstance(fact, OtherFact)
    assert b"garbage" in fact.raw
