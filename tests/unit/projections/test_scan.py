"""Reading what models want: once, all of it, and nothing that costs more to leave out."""

from __future__ import annotations

import pytest

from app.aggregates.events import TypingObserved
from app.projections import MODELS, THREAD_MAP, TOKEN_TOTALS
from app.projections.model import Seen
from app.projections.scan import Poison, Reading
from eventstore.codec import Event
from eventstore.types import NewEvent, Position
from tests.unit.projections.histories import TestLog, received, started, tokens

WANTED = (received(), started("t"), tokens("t", 7), received())


def read(reading: Reading, history: TestLog, after: Position, up_to: Position) -> list[list[Seen]]:
    rows = reading.scan(history.log, after, up_to)
    return reading.read(rows, history.log.stream_names({row[1] for row in rows}))


def kinds(batch: list[Seen]) -> list[type[Event]]:
    return [seen[3] for seen in batch]


def test_each_model_gets_what_it_wants_in_the_order_of_the_log(history: TestLog) -> None:
    end = history.append("a", *WANTED)
    threads, totals = read(Reading([THREAD_MAP, TOKEN_TOTALS]), history, Position(0), end)
    assert kinds(threads) == [type(WANTED[n]) for n in (0, 1, 3)]
    assert kinds(totals) == [type(WANTED[n]) for n in (1, 2)]
    assert {seen[1] for seen in threads} == {"user/a"}


def test_types_are_compared_only_where_many_events_are_not_wanted(history: TestLog) -> None:
    first = history.append("a", *WANTED * 2)
    second = history.append("a", *WANTED * 2, TypingObserved())
    third = history.append("a", *WANTED, *[TypingObserved()] * 4)
    reading = Reading(MODELS)

    def rows(after: Position, up_to: Position) -> int:
        found = reading.scan(history.log, after, up_to)
        batches = reading.read(found, history.log.stream_names({row[1] for row in found}))
        assert not any(TypingObserved in kinds(batch) for batch in batches)
        return len(found)

    assert rows(Position(0), first) == 8
    assert rows(first, second) == 9  # nearly all were wanted: all are brought
    assert rows(second, third) == 8  # still
    assert rows(second, third) == 4


def test_an_event_of_a_newer_release_is_not_passed_over_where_types_are_not_compared(
    history: TestLog,
) -> None:
    first = history.append("a", *WANTED)
    second = history.append_raw("a", NewEvent("MessageReceived@2", b"\x80"))
    reading = Reading(MODELS)
    read(reading, history, Position(0), first)
    with pytest.raises(Poison, match=f"the event at {second} cannot be read"):
        read(reading, history, first, second)
