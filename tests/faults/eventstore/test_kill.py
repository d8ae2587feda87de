"""kill -9 of writing processes at random moments, round after round, on one log.

What was acknowledged is there; what was not is there whole or not at all; nothing has a gap.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from eventstore.types import Position, Recorded
from tests.conformance.appends import check, whole
from tests.conformance.conftest import FACTORIES
from tests.conformance.processes import Acknowledged, Child, write_many
from tests.conformance.stores import StoreFactory

ROUNDS = 150
SECONDS = 8.0
FOR_EVER = 1_000_000


@pytest.fixture(params=sorted(FACTORIES))
def factory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreFactory]:
    factory = FACTORIES[request.param](tmp_path)
    yield factory
    factory.close()


@pytest.mark.slow
def test_what_was_acknowledged_survives_and_nothing_is_half_done(factory: StoreFactory) -> None:
    chance = random.Random(7)
    acknowledged: list[Acknowledged] = []
    events: list[Recorded] = []
    began = time.monotonic()
    rounds = 0
    while rounds < ROUNDS and time.monotonic() - began < SECONDS:
        rounds += 1
        # With a reader that lives on, the next process finds the WAL as the dead one left it; with
        # none, it has to recover the file.
        survivor = factory.open() if chance.random() < 0.5 else None
        told = one_round(factory, chance)
        log = survivor or factory.open()
        fresh = log.read(after=Position(len(events)), limit=1_000_000)
        each_append_is_whole(fresh)
        events += fresh
        each_is_there(told, events)
        acknowledged += told
        factory.close()
    log = factory.open()
    assert whole(log) == events
    check(events)
    each_is_there(acknowledged, events)
    factory.close()
    assert rounds >= 5
    assert len(acknowledged) > 50
    assert factory.damage() == []


def one_round(factory: StoreFactory, chance: random.Random) -> list[Acknowledged]:
    """Two processes write at once; one is killed, then, a little later, the other."""
    heard: list[Acknowledged] = []
    with (
        Child(write_many, factory, chance.random(), FOR_EVER) as one,
        Child(write_many, factory, chance.random(), FOR_EVER) as other,
    ):
        for child in (one, other):
            assert child.hear() == "ready"
        for child in (one, other):
            child.say("go")
        for child in (one, other):
            heard += [child.hear() for _ in range(chance.randrange(30))]
            child.kill()
        heard += one.last_words() + other.last_words()
    return heard


def each_append_is_whole(events: Sequence[Recorded]) -> None:
    """Every event says which of how many it is: all of an append's must be there."""
    found = Counter(e.append_id for e in events)
    for e in events:
        number, size = e.state.rstrip(b".").split(b"/")
        assert found[e.append_id] == int(size)
        assert int(number) <= int(size)


def each_is_there(acknowledged: Sequence[Acknowledged], events: Sequence[Recorded]) -> None:
    """What a caller was told is what the log says, event by event."""
    for told in acknowledged:
        answer, wanted = told.answer, told.append
        stored = events[answer.first_position - 1 : answer.last_position]
        assert [e.state for e in stored] == [e.state for e in wanted.events]
        assert {(e.append_id, e.stream, e.recorded_at) for e in stored} == {
            (wanted.append_id, wanted.stream, answer.recorded_at)
        }
        assert stored[-1].version == answer.version
