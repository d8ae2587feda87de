"""Every event can be told to a person: none falls back to its raw fields."""

from __future__ import annotations

import re

import pytest

from app.aggregates.catalogue import EVENT_CLASSES
from app.cli.recorded import Presenter
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


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_an_event_is_told_in_words_without_ids_and_raw_instants(event: Event) -> None:
    words = Presenter(CODEC, Epoch(1)).as_words(recorded(event))
    assert words
    assert not re.search(r"[a-z_]+=|\b(run|conv|resp)_|\d{13}|[{}]", words), words
