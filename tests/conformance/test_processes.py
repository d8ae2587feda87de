"""Several processes at one log: each append is decided as if it were alone."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from eventstore.store import LogStore
from tests.conformance.appends import ANA, check, grow, whole
from tests.conformance.processes import Child, contend, open_at_once
from tests.conformance.stores import StoreFactory


def test_two_processes_that_append_to_one_stream_win_each_version_once(
    store_factory: StoreFactory,
) -> None:
    versions = 300
    with (
        Child(contend, store_factory, ANA, versions) as one,
        Child(contend, store_factory, ANA, versions) as other,
    ):
        for child in (one, other):
            assert child.hear() == "ready"
        for child in (one, other):
            child.say("go")
        won = one.hear() + other.hear()
    assert sorted(won) == list(range(versions))
    events = whole(store_factory.open())
    check(events)
    assert [int(e.state) for e in events] == list(range(versions))


@pytest.mark.parametrize("round_", range(3))
def test_processes_that_open_a_new_log_at_one_moment_share_it(
    store_factory: StoreFactory, round_: int
) -> None:
    with ExitStack() as children:
        all_ = [
            children.enter_context(Child(open_at_once, store_factory, f"user/{n}"))
            for n in range(5)
        ]
        for child in all_:
            assert child.hear() == "ready"
        for child in all_:
            child.say("go")
        assert sorted(child.hear() for child in all_) == [1, 2, 3, 4, 5]
    check(whole(store_factory.open()))


def test_a_change_by_anyone_changes_the_counter(log: LogStore, store_factory: StoreFactory) -> None:
    other = store_factory.open()
    quiet = log.change_counter()
    assert log.change_counter() == quiet
    grow(other, [1])
    after_other = log.change_counter()
    assert after_other != quiet
    grow(log, [1])
    assert log.change_counter() != after_other
