"""A moment of the past: between two appends, and older than what is newest."""

from __future__ import annotations

import pytest

from eventstore.errors import CutInsideAppend, NotYet
from eventstore.moments import checked_cut, position_at
from eventstore.store import LogStore
from eventstore.types import Appended, Micros, Position
from eventstore.writer import Writer
from tests.conformance.appends import ANA, BEN, append, event
from tests.conformance.stores import START, FakeClock


def said(writer: Writer, stream: str, expected: int, count: int) -> Appended:
    return writer.append_blocking(append(stream, expected, *([event()] * count)))


def test_an_instant_means_all_that_was_recorded_by_then(
    log: LogStore, writer: Writer, clock: FakeClock
) -> None:
    first = said(writer, ANA, 0, 2)
    clock.move(1_000)
    second = said(writer, ANA, 2, 3)
    assert position_at(log, Micros(first.recorded_at - 1)) == 0
    assert position_at(log, first.recorded_at) == 2
    assert position_at(log, Micros(second.recorded_at - 1)) == 2
    assert position_at(log, second.recorded_at) == 5


def test_an_instant_that_the_log_has_not_passed_is_not_answered(
    log: LogStore, writer: Writer, clock: FakeClock
) -> None:
    with pytest.raises(NotYet):
        position_at(log, START)
    done = said(writer, ANA, 0, 1)
    later = Micros(done.recorded_at + 500)
    with pytest.raises(NotYet, match="can still change"):
        position_at(log, later)
    clock.move(1_000)
    said(writer, ANA, 1, 1)
    assert position_at(log, later) == 1


def test_a_cut_inside_an_append_names_both_neighbours(log: LogStore, writer: Writer) -> None:
    said(writer, ANA, 0, 2)
    said(writer, BEN, 0, 4)
    said(writer, ANA, 2, 1)
    for whole in (0, 2, 6, 7):
        assert checked_cut(log, Position(whole)) == whole
    for inside in (3, 4, 5):
        with pytest.raises(CutInsideAppend, match="Give 2 or 6"):
            checked_cut(log, Position(inside))
    with pytest.raises(NotYet, match="ends at position 7"):
        checked_cut(log, Position(8))
