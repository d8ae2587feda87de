"""A snapshot is a shortcut that can be wrong only by being absent."""

from __future__ import annotations

import pytest

from eventstore.store import LogStore
from eventstore.types import Epoch, Snapshot, StreamName, Version
from tests.conformance.appends import ANA, BEN, append, event, grow
from tests.conformance.stores import StoreFactory


def snapshot(
    version: int, *, epoch: int = 1, shape: bytes = b"shape", stream: StreamName = ANA
) -> Snapshot:
    return Snapshot(stream, Version(version), Epoch(epoch), shape, b"state at %d" % version)


def save(log: LogStore, *snapshots: Snapshot) -> None:
    log.append_batch([], snapshots)


def test_a_snapshot_is_given_back_as_it_was_saved(log: LogStore) -> None:
    grow(log, [3])
    wanted = snapshot(2, shape=b"\x00 a hash of the shape")
    save(log, wanted)
    assert log.snapshot(ANA) == wanted
    assert log.snapshot(BEN) is None


def test_a_snapshot_can_be_saved_with_the_events_that_it_covers(log: LogStore) -> None:
    log.append_batch([append(ANA, 0, event(), event())], [snapshot(2)])
    assert log.snapshot(ANA) == snapshot(2)


def test_a_snapshot_survives_a_restart(log: LogStore, store_factory: StoreFactory) -> None:
    grow(log, [3])
    save(log, snapshot(3))
    assert store_factory.reopen(log).snapshot(ANA) == snapshot(3)


def test_the_newest_snapshot_is_kept_whatever_the_order_of_saving(log: LogStore) -> None:
    grow(log, [5])
    save(log, snapshot(2))
    save(log, snapshot(4), snapshot(3))
    assert log.snapshot(ANA) == snapshot(4)


def test_a_snapshot_of_the_same_version_and_a_new_shape_replaces_the_old(log: LogStore) -> None:
    grow(log, [5])
    save(log, snapshot(4))
    save(log, snapshot(4, shape=b"new shape"))
    assert log.snapshot(ANA) == snapshot(4, shape=b"new shape")


def test_a_snapshot_of_another_epoch_is_not_given(
    log: LogStore, store_factory: StoreFactory
) -> None:
    grow(log, [3])
    save(log, snapshot(3))
    store_factory.start_epoch()
    assert log.snapshot(ANA) is None
    save(log, snapshot(2, epoch=2))
    assert log.snapshot(ANA) == snapshot(2, epoch=2)


def test_a_late_snapshot_of_an_earlier_epoch_does_not_take_the_place_of_a_good_one(
    log: LogStore, store_factory: StoreFactory
) -> None:
    grow(log, [3])
    store_factory.start_epoch()
    save(log, snapshot(2, epoch=2))
    save(log, snapshot(3, epoch=1))
    assert log.snapshot(ANA) == snapshot(2, epoch=2)


@pytest.mark.parametrize("stream", [ANA, StreamName("user/nobody")])
def test_a_snapshot_above_the_head_is_dropped(log: LogStore, stream: StreamName) -> None:
    grow(log, [3])
    save(log, snapshot(4, stream=stream))
    assert log.snapshot(stream) is None
    grow(log, [1])
    assert log.snapshot(stream) is None


def test_a_snapshot_that_a_restore_left_above_the_head_is_dropped(
    log: LogStore, store_factory: StoreFactory
) -> None:
    grow(log, [3])
    save(log, snapshot(3))
    store_factory.tamper("UPDATE snapshots SET version = 9")  # as if the log had been cut at 3
    assert log.snapshot(ANA) is None
    save(log, snapshot(3))
    assert log.snapshot(ANA) == snapshot(3)
