"""Every event can be told to a person: none falls back to its raw fields."""

from __future__ import annotations

import re

import pytest

from app.aggregates import events as e
from app.aggregates.catalogue import EVENT_CLASSES
from app.cli.recorded import Presenter
from app.cli.wording import worded
from eventstore.codec import Codec, Event
from eventstore.types import AppendId, Epoch, Micros, Position, Recorded, StreamName, Version
from tests.golden import samples

CODEC = Codec(EVENT_CLASSES)
EVENTS: dict[str, Event] = {
    f"{name}-{sample}": event
    for kind in (samples.USER, samples.GATEWAY, samples.JOBS, samples.CLEANUP)
    for name, entries in kind.items()
    for sample, event in entries.items()
}


def recorded(event: Event) -> Recorded:
    new = CODEC.encode(event)
    return Recorded(
        Position(1),
        StreamName("user/nobody"),
        Version(1),
        new.type,
        Micros(0),
        None,
        AppendId(b"a" * 16),
        new.state,
    )


def test_every_type_has_a_sample() -> None:
    assert {type(event) for event in EVENTS.values()} == set(EVENT_CLASSES)


OLD, WHEN = 1_753_698_600_000_000, "2025-07-28 10:30:00.000Z"


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (e.ThreadStarted(thread="t", reason="first_time", at=OLD),
         f"imported of {WHEN}: a conversation at OpenAI (first time)"),
        (e.ThreadStarted(thread="t", reason="first_time"),
         "a new conversation at OpenAI (first time)"),
        (e.ThreadReset(thread="t", reason="thread_changed", at=OLD),
         f"imported of {WHEN}: the conversation was left (thread changed), 0 tokens with it"),
        (e.ActivityRecorded(last_activity=OLD, tokens=0, at=OLD),
         f"imported: last active {WHEN}, 0 tokens"),
        (e.ProfileUpdated(profile=samples.SEALED, at=OLD),
         f"imported of {WHEN}: name or labels are now «sealed»"),
        (e.ProfileUpdated(profile=samples.SEALED, at=0),
         "imported: name or labels are now «sealed»"),
        (e.ProfileUpdated(profile=samples.SEALED), "name or labels are now «sealed»"),
    ],
)  # fmt: skip
def test_what_was_imported_is_told_with_its_original_time(event: Event, words: str) -> None:
    assert Presenter(CODEC, Epoch(1)).as_words(recorded(event)) == words


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("system", "WhatsApp noted: «sealed»"),
        ("text", "the person sent a text: «sealed»"),
        ("image", "the person sent an image: «sealed»"),
        ("media", "the person sent a file: «sealed»"),
        ("audio", "the person sent an audio message: «sealed»"),
        ("live_location", "the person sent a live location: «sealed»"),
    ],
)
def test_a_message_reads_as_a_person_would_tell_it(kind: str, words: str) -> None:
    live = e.MessageReceived(ref=b"r", kind=kind, content=samples.SEALED)
    old = e.MessageImported(ref=b"r", kind=kind, content=samples.SEALED, at=OLD)
    told = Presenter(CODEC, Epoch(1)).as_words
    assert told(recorded(live)) == words
    assert told(recorded(old)) == f"imported of {WHEN}: {words}"


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"id": "x\xff\n"}', '{"id": "x\ufffd "}'),
        (b"9" * 600, "9" * 500 + "…"),
        ({"sealed": "…"}, "«sealed»"),
    ],
)
def test_what_could_not_be_read_is_shown_as_it_came_to_those_who_open_it(
    body: object, shown: str
) -> None:
    words = worded("WebhookItemRejected", {"reason": "messages: no chat_id", "body": body})
    assert words == f"could not be read (messages: no chat_id): {shown}"


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_an_event_is_told_in_words_without_ids_and_raw_instants(event: Event) -> None:
    words = Presenter(CODEC, Epoch(1)).as_words(recorded(event))
    assert words
    assert not re.search(r"[a-z_]+=|\b(run|conv|resp)_|\d{13}|[{}]", words), words
