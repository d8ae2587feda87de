"""Several processes at one log: each append is decided as if it were alone."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from eventstore.store import LogStore, Watch
from eventstore.writer import Writer
from tests.conformance.appends import ANA, BEN, append, check, grow, whole
from tests.conformance.held import PATIENCE
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


def test_a_change_by_anyone_ends_a_wait(log: LogStore, store_factory: StoreFactory) -> None:
    other = store_factory.open()
    watch, writer = log.watch(), Writer(log)
    writer.listen(lambda _: watch.wake())
    settle(watch)
    for grown in (lambda: grow(other, [1]), lambda: writer.append_blocking(append(BEN))):
        with ThreadPoolExecutor(1) as pool:
            told = pool.submit(watch.wait, PATIENCE)
            began = time.monotonic()
            grown()
            assert told.result(PATIENCE)
        assert time.monotonic() - began < 0.5
        settle(watch)
    writer.close()


def settle(watch: Watch) -> None:
    """Return when nothing is new to a watch, and what was has been passed on."""
    while watch.wait(0.1):
        pass
