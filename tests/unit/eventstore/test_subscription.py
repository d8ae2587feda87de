"""A subscription by itself: what wakes it, what stops it, what it refuses to go on with."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import cast

import pytest

from eventstore.errors import CursorMismatch
from eventstore.integrity import leaf_hash
from eventstore.sqlite import FileWatch
from eventstore.store import LogReader
from eventstore.subscription import Subscription
from eventstore.types import (
    AppendId,
    Cursor,
    Epoch,
    Head,
    Micros,
    Position,
    Recorded,
    StreamName,
    Version,
)

FOR_EVER = 600.0
PATIENCE = 30.0


class ShortLog:
    """A log in memory, of one-event appends; as much of the port as a subscription asks for."""

    def __init__(self, length: int = 0) -> None:
        self.epoch = Epoch(1)
        self.events: list[Recorded] = []
        self.changes = 0
        self.reached = 0
        self.asked_for_changes = threading.Semaphore(0)
        self.grow(length)

    def grow(self, count: int, kind: str = "Said") -> None:
        for _ in range(count):
            n = len(self.events) + 1
            self.events.append(
                Recorded(
                    Position(n),
                    StreamName("s"),
                    Version(n),
                    kind,
                    Micros(n),
                    None,
                    AppendId(b"i" * 16),
                    b"",
                )
            )
        self.changes += 1

    def head(self) -> Head:
        return Head(self.epoch, Position(len(self.events)), Micros(0))

    def read(
        self, *, after: Position, up_to: Position, limit: int, types: Sequence[str] | None
    ) -> list[Recorded]:
        window = self.events[after:up_to]
        return [e for e in window if types is None or e.type in types][:limit]

    def verify_cursor(self, cursor: Cursor) -> None:
        if cursor.epoch != self.epoch:
            raise CursorMismatch(cursor.position, "epoch")
        event = self.event_at(cursor.position)
        if cursor.leaf != (b"" if event is None else leaf_hash(event)):
            raise CursorMismatch(cursor.position, "leaf")

    def event_at(self, position: Position) -> Recorded | None:
        return self.events[position - 1] if position <= len(self.events) else None

    def connections(self) -> int:
        return self.reached

    def watch(self) -> FileWatch:
        return FileWatch(self._changes)

    def _changes(self) -> int:
        self.asked_for_changes.release()
        return self.changes


def subscribe(
    log: ShortLog,
    *,
    after: Cursor | None = None,
    types: Sequence[str] | None = None,
    page: int = 2000,
) -> Subscription:
    return Subscription(cast("LogReader", log), after=after, types=types, page=page)


def waited(subscription: Subscription) -> float:
    """Wait for what should end at once; return how long that took, in seconds."""
    began = time.monotonic()
    subscription.wait(PATIENCE)
    return time.monotonic() - began


def positions(subscription: Subscription) -> list[list[int]]:
    batches: list[list[int]] = []
    while batch := subscription.poll():
        batches.append([e.position for e in batch.events])
    return batches


@pytest.mark.parametrize(
    ("length", "batches"), [(0, []), (2, [[1, 2]]), (3, [[1, 2, 3]]), (4, [[1, 2, 3], [4]])]
)
def test_batches_are_pages_until_the_end(length: int, batches: list[list[int]]) -> None:
    assert positions(subscribe(ShortLog(length), page=3)) == batches


def test_a_filter_passes_over_what_it_leaves_out_and_loses_nothing_behind_a_full_page() -> None:
    log = ShortLog()
    for kind in ("Said", "Heard") * 4:
        log.grow(1, kind)
    subscription = subscribe(log, types=["Heard"], page=2)
    assert positions(subscription) == [[2, 4], [6, 8]]
    assert subscription.position == 8
    log.grow(2, "Said")
    batch = subscription.poll()
    assert batch is not None
    assert (batch.events, batch.up_to) == ([], 10)


def test_what_comes_while_a_batch_is_read_waits_for_the_next() -> None:
    log = ShortLog(2)
    subscription = subscribe(log)
    read = log.read

    def read_while_it_grows(**window: object) -> list[Recorded]:
        log.read = read  # type: ignore[method-assign]
        log.grow(1)
        return read(**window)  # type: ignore[arg-type]

    log.read = read_while_it_grows  # type: ignore[method-assign]
    assert positions(subscription) == [[1, 2], [3]]


def test_a_subscription_refuses_a_cursor_the_log_does_not_know() -> None:
    with pytest.raises(CursorMismatch):
        subscribe(ShortLog(3), after=Cursor(Epoch(2), Position(1), b""))


def test_a_log_that_was_restored_is_not_read_on() -> None:
    log = ShortLog(3)
    subscription = subscribe(log)
    positions(subscription)
    log.epoch = Epoch(2)
    with pytest.raises(CursorMismatch, match="epoch 2, not 1"):
        subscription.poll()


def test_a_log_that_went_back_is_not_read_on() -> None:
    log = ShortLog(3)
    subscription = subscribe(log)
    positions(subscription)
    del log.events[1:]
    with pytest.raises(CursorMismatch, match="ends at 1"):
        subscription.poll()


def test_what_is_known_is_passed_over() -> None:
    log = ShortLog(5)
    subscription = subscribe(log)
    subscription.pass_over(Position(3))
    assert subscription.cursor == Cursor(Epoch(1), Position(3), leaf_hash(log.events[2]))
    subscription.pass_over(Position(2))  # it is behind it already
    assert positions(subscription) == [[4, 5]]
    subscription.pass_over(Position(5))
    assert subscription.poll() is None


@pytest.mark.parametrize(("epoch", "match"), [(1, "the log now ends at 2"), (2, "epoch 2, not 1")])
def test_nothing_is_passed_over_that_the_log_has_not(epoch: int, match: str) -> None:
    log = ShortLog(2)
    subscription = subscribe(log)
    positions(subscription)
    log.epoch = Epoch(epoch)
    with pytest.raises(CursorMismatch, match=match):
        subscription.pass_over(Position(3))
    assert subscription.position == 2


def exchange(log: ShortLog, *, length: int) -> None:
    """Put another log of that length behind the same address, as a failover may."""
    log.events.clear()
    log.grow(length, "Other")
    log.reached += 1


@pytest.mark.parametrize("types", [None, ["Wanted"]])
@pytest.mark.parametrize("length", [3, 5])
def test_a_log_that_is_another_one_after_a_reconnect_is_not_read_on(
    types: Sequence[str] | None, length: int
) -> None:
    log = ShortLog(3)
    subscription = subscribe(log, types=types)
    assert positions(subscription) == ([[1, 2, 3]] if types is None else [[]])
    exchange(log, length=length)
    for _ in range(2):
        with pytest.raises(CursorMismatch):
            subscription.poll()


def test_a_log_that_is_the_same_after_a_reconnect_is_read_on() -> None:
    log = ShortLog(3)
    subscription = subscribe(log)
    assert positions(subscription) == [[1, 2, 3]]
    log.reached += 1
    log.grow(2)
    assert positions(subscription) == [[4, 5]]


def test_waiting_ends_at_once_if_something_changed_since_the_last_look() -> None:
    log = ShortLog(1)
    subscription = subscribe(log)
    assert waited(subscription) < PATIENCE, "it has never looked"
    log.grow(1)
    assert waited(subscription) < PATIENCE


def test_waiting_ends_with_the_time_it_was_given() -> None:
    subscription = subscribe(ShortLog(1))
    subscription.wait(FOR_EVER)
    began = time.monotonic()
    subscription.wait(0)
    subscription.wait(0.03)
    assert time.monotonic() - began >= 0.03


@pytest.mark.parametrize("how", ["wake", "stop", "change"])
def test_waiting_ends_when_it_is_told(how: str) -> None:
    log = ShortLog(1)
    subscription = subscribe(log)
    subscription.wait(FOR_EVER)
    waiting = threading.Thread(target=subscription.wait, args=(FOR_EVER,), daemon=True)
    waiting.start()
    for _ in range(3):  # it looks again and again, and stays
        assert log.asked_for_changes.acquire(timeout=PATIENCE)
    assert waiting.is_alive()
    if how == "change":
        log.grow(1)
    else:
        getattr(subscription, how)()
    waiting.join(PATIENCE)
    assert not waiting.is_alive()


def test_a_hint_that_came_too_early_is_not_lost() -> None:
    subscription = subscribe(ShortLog(1))
    subscription.wait(FOR_EVER)
    subscription.wake(Position(9))
    assert waited(subscription) < PATIENCE


def test_iterating_yields_until_stopped_and_finishes_the_batch_in_hand() -> None:
    log = ShortLog(5)
    subscription = subscribe(log, page=2)
    seen = []
    for batch in subscription:
        seen.append(batch.up_to)
        if batch.up_to == 4:
            subscription.stop()
    assert seen == [2, 4]
    assert list(subscription) == []
