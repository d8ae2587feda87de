"""A subscriber sees every position once, in order, without gaps, live, whoever writes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from eventstore.errors import CursorMismatch
from eventstore.store import LogStore
from eventstore.subscription import Subscription
from eventstore.types import Position
from eventstore.writer import Writer
from tests.conformance.appends import ANA, append, check, event, grow, whole, write
from tests.conformance.held import PATIENCE
from tests.conformance.processes import Child, follow, follow_and_tell, write_many
from tests.conformance.stores import StoreFactory


def drain(subscription: Subscription) -> list[int]:
    """The positions of everything that is there now."""
    seen: list[int] = []
    while batch := subscription.poll():
        seen += [e.position for e in batch.events]
    return seen


def test_a_subscriber_catches_up_in_pages_and_then_sees_what_is_new(log: LogStore) -> None:
    grow(log, [3, 4, 1, 9, 2])
    subscription = Subscription(log, page=4)
    assert drain(subscription) == list(range(1, 20))
    assert subscription.poll() is None
    grow(log, [2])
    assert drain(subscription) == [20, 21]
    assert subscription.position == 21


def test_a_batch_never_splits_an_append(log: LogStore) -> None:
    grow(log, [3, 5, 2])
    subscription = Subscription(log, page=4)
    ends = []
    while batch := subscription.poll():
        ends.append(batch.up_to)
    assert ends == [8, 10]


def test_a_subscriber_goes_on_where_its_cursor_stands(log: LogStore) -> None:
    grow(log, [3, 4])
    assert drain(Subscription(log, after=log.cursor_at(Position(3)))) == [4, 5, 6, 7]


def test_a_subscriber_of_some_types_passes_over_the_rest(log: LogStore) -> None:
    write(log, append(ANA, 0, event(kind="Said"), event(kind="Heard"), event(kind="Said")))
    subscription = Subscription(log, types=["Heard"])
    batch = subscription.poll()
    assert batch is not None
    assert ([e.position for e in batch.events], batch.up_to) == ([2], 3)
    assert subscription.poll() is None
    write(log, append(ANA, 3, event(kind="Said")))
    batch = subscription.poll()
    assert batch is not None
    assert (batch.events, batch.up_to, subscription.position) == ([], 4, 4)


def test_a_cursor_of_another_log_starts_no_subscription(
    log: LogStore, store_factory: StoreFactory
) -> None:
    grow(log, [3])
    cursor = log.cursor_at(Position(3))
    store_factory.start_epoch()
    with pytest.raises(CursorMismatch):
        Subscription(log, after=cursor)


def test_a_restore_stops_a_running_subscription(log: LogStore, store_factory: StoreFactory) -> None:
    grow(log, [3])
    subscription = Subscription(log)
    drain(subscription)
    store_factory.start_epoch()
    with pytest.raises(CursorMismatch):
        subscription.poll()


def test_a_subscriber_that_waits_is_woken_by_its_own_process(log: LogStore) -> None:
    writer = Writer(log)
    subscription = Subscription(log)
    writer.listen(subscription.wake)

    def first() -> list[int]:
        return [e.position for e in next(iter(subscription)).events]

    with ThreadPoolExecutor(1) as pool:
        seen = pool.submit(first)
        writer.append_blocking(append())
        assert seen.result(PATIENCE) == [1]
    writer.close()


def test_a_subscriber_that_waits_can_be_stopped(log: LogStore) -> None:
    subscription = Subscription(log)
    with ThreadPoolExecutor(1) as pool:
        end = pool.submit(lambda: list(subscription))
        subscription.stop()
        assert end.result(PATIENCE) == []


def test_every_position_is_seen_once_in_order_while_four_processes_write(
    store_factory: StoreFactory,
) -> None:
    writers, appends, extra = 4, 80, 1
    log = store_factory.open()
    with ExitStack() as children:
        writing = [
            children.enter_context(Child(write_many, store_factory, seed, appends))
            for seed in range(writers)
        ]
        for child in writing:
            assert child.hear() == "ready"
        total = writers * appends
        reading = [
            children.enter_context(Child(follow, store_factory, "end/of/test")) for _ in range(2)
        ]
        here = Subscription(log, page=13)
        for child in reading:
            assert child.hear() == "ready"
        for child in writing:
            child.say("go")
        seen: list[int] = []
        acknowledged = []
        with ThreadPoolExecutor(1) as pool:
            listening = pool.submit(lambda: [_hear_all(child) for child in writing])
            while not listening.done():
                seen += drain(here)
            for heard in listening.result():
                acknowledged += heard
        write(log, append("end/of/test", 0, *(event() for _ in range(extra))))
        seen += drain(here)
        everything = whole(log)
        check(everything)
        positions = [e.position for e in everything]
        assert seen == positions
        for child in reading:
            assert child.hear() == positions
        assert len(acknowledged) == total


def _hear_all(child: Child) -> list[object]:
    heard = []
    while (word := child.hear()) != "done":
        heard.append(word)
    return heard


def test_a_subscriber_in_another_process_follows_without_a_delay_anyone_would_notice(
    store_factory: StoreFactory, log: LogStore
) -> None:
    delays = []
    with Child(follow_and_tell, store_factory) as reader:
        assert reader.hear() == "ready"
        for n in range(200):
            began = time.monotonic()
            [answer] = grow(log, [1])
            up_to, seen = reader.hear()
            assert (up_to, answer.last_position) == (n + 1, n + 1)
            delays.append(seen - began)
    # Nine of ten: the tenth may have waited for a processor that other tests kept busy.
    assert sorted(delays)[int(len(delays) * 0.9)] < 0.1
