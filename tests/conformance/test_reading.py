"""What a reader gets: pages that keep appends whole, the past by time, cursors that notice."""

from __future__ import annotations

import shutil
import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore.errors import CursorMismatch
from eventstore.integrity import leaf_hash
from eventstore.store import LogStore, StreamInfo
from eventstore.types import Cursor, Epoch, Micros, Position, Recorded, StreamName, Version
from tests.conformance.appends import ANA, BEN, append, check, event, grow, key, whole, write
from tests.conformance.conftest import FACTORIES
from tests.conformance.stores import START, FakeClock, StoreFactory

KINDS = ("Said", "Heard", "Done")


@contextmanager
def fresh(name: str) -> Iterator[StoreFactory]:
    """A log for one example of hypothesis, which knows no fixtures that live as short."""
    folder = tempfile.mkdtemp()
    factory = FACTORIES[name](Path(folder))
    try:
        yield factory
    finally:
        factory.close()
        shutil.rmtree(folder)


# -- pages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", sorted(FACTORIES))
@given(
    shapes=st.lists(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6), max_size=12),
    limit=st.integers(1, 9),
    types=st.none() | st.lists(st.sampled_from(KINDS), unique=True),
)
@settings(max_examples=60)
def test_pages_hold_every_event_once_and_never_split_an_append(
    store: str, shapes: list[list[str]], limit: int, types: list[str] | None
) -> None:
    with fresh(store) as factory:
        log = factory.open()
        log.append_batch(
            [append(f"s/{i}", 0, *(event(kind=k) for k in kinds)) for i, kinds in enumerate(shapes)]
        )
        wanted = [e for e in whole(log) if types is None or e.type in types]
        assert len(wanted) == sum(types is None or k in types for kinds in shapes for k in kinds)
        read: list[Recorded] = []
        while page := log.read(
            after=read[-1].position if read else Position(0), limit=limit, types=types
        ):
            rest = wanted[len(read) :]
            # The page is what comes next: its limit, and the rest of the append it stopped in.
            due = rest[:limit]
            due += [e for e in rest[limit:] if e.append_id == due[-1].append_id]
            assert page == due
            read += page
        assert read == wanted


def test_a_page_ends_where_it_is_told_to(log: LogStore) -> None:
    grow(log, [2, 3, 4])
    assert [e.position for e in log.read(after=Position(1), up_to=Position(7))] == [
        2,
        3,
        4,
        5,
        6,
        7,
    ]
    assert [e.position for e in log.read(limit=3, up_to=Position(4))] == [1, 2, 3, 4]
    assert log.read(after=Position(9)) == []
    assert log.read(limit=0) == []


def test_a_filtered_read_passes_over_all_else(log: LogStore) -> None:
    write(log, append(ANA, 0, event(kind="Said"), event(kind="Heard"), event(kind="Done")))
    assert [e.type for e in log.read(types=["Heard", "Done"])] == ["Heard", "Done"]
    assert log.read(types=[]) == []
    assert log.read(types=["said"]) == []


def test_what_holds_some_bytes_is_found_and_its_append_kept_whole(log: LogStore) -> None:
    write(log, append(ANA, 0, event("a run_1"), event("of no run"), event("run_1, run_2")))
    write(log, append(BEN, 0, event("run_1"), event("b run_1 b"), event("run_1")))

    def found(part: bytes, *, after: int = 0, up_to: int = 6, limit: int = 9) -> list[int]:
        events = log.read_holding(part, after=Position(after), up_to=Position(up_to), limit=limit)
        assert events == [e for e in whole(log) if e.position in {f.position for f in events}]
        return [e.position for e in events]

    assert found(b"run_1") == [1, 3, 4, 5, 6]
    assert found(b"run_1", limit=1) == [1, 3]
    assert found(b"run_1", after=3, limit=2) == [4, 5, 6]
    assert found(b"run_1", after=1, up_to=4) == [3, 4]
    assert found(b"run_2") == [3]
    assert found(b"\xff\x00") == []


@pytest.mark.parametrize("beyond", [0, 100_000], ids=["narrow", "wide"])
def test_a_scan_finds_the_wanted_types_between_two_positions(log: LogStore, beyond: int) -> None:
    for stream in (ANA, BEN):
        write(log, append(stream, 0, *(event(kind=kind) for kind in KINDS)))
    up_to = Position(6 + beyond)
    for _ in range(8):  # often enough that a session would keep its plan
        scanned = log.scan(after=Position(1), up_to=up_to, types=["Done", "Said", "Never"])
    names = log.stream_names({number for _, number, *_ in scanned})
    assert [(at, names[number], kind) for at, number, kind, _, _ in scanned] == [
        (3, ANA, "Done"),
        (4, BEN, "Said"),
        (6, BEN, "Done"),
    ]
    assert [(at, state) for *_, at, state in scanned] == [
        (e.recorded_at, e.state) for e in whole(log) if e.position in {3, 4, 6}
    ]
    assert log.scan(after=Position(1), up_to=Position(2), types=["Done"]) == []


def test_a_scan_without_types_finds_everything_between_two_positions(log: LogStore) -> None:
    for stream in (ANA, BEN):
        write(log, append(stream, 0, *(event(kind=kind) for kind in KINDS)))
    scanned = log.scan(after=Position(1), up_to=Position(5))
    assert scanned == log.scan(after=Position(1), up_to=Position(5), types=KINDS)
    assert [position for position, *_ in scanned] == [2, 3, 4, 5]


def test_a_stream_is_read_between_versions(log: LogStore) -> None:
    grow(log, [3, 3], ANA)
    grow(log, [2], BEN)

    def versions(**window: int) -> list[int]:
        return [e.version for e in log.read_stream(ANA, **window)]  # type: ignore[arg-type]

    assert versions() == [1, 2, 3, 4, 5, 6]
    assert versions(after=2) == [3, 4, 5, 6]
    assert versions(after=2, up_to=4) == [3, 4]
    assert versions(after=1, limit=2) == [2, 3]
    assert log.read_stream(StreamName("user/nobody")) == []


def test_an_event_is_found_by_position_and_by_key(log: LogStore) -> None:
    write(log, append(ANA, 0, event("a"), event("b", keyed="k"), event("c")))
    by_position, by_key = log.event_at(Position(2)), log.event_by_key(key("k"))
    assert by_position == by_key == whole(log)[1]
    assert log.event_at(Position(4)) is None
    assert log.event_by_key(key("other")) is None


def test_streams_are_listed_by_prefix_in_the_order_of_their_birth(log: LogStore) -> None:
    names = ["user/b", "jobs/x", "user/a", "user", "users/z", "user/"]
    write(log, *(append(name) for name in names))
    write(log, append("user/a", 1))
    assert list(log.streams("user/")) == [
        StreamInfo(StreamName("user/b"), Version(1)),
        StreamInfo(StreamName("user/a"), Version(2)),
        StreamInfo(StreamName("user/"), Version(1)),
    ]
    assert [s.name for s in log.streams()] == names


def test_thousands_of_streams_are_all_listed(log: LogStore) -> None:
    names = [f"user/{i}" for i in range(2300)]
    write(log, *(append(name) for name in names))
    assert [s.name for s in log.streams("user/")] == names


def test_events_are_counted_by_type(log: LogStore) -> None:
    assert log.count_by_type() == {}
    write(log, append(ANA, 0, event(kind="Said"), event(kind="Heard"), event(kind="Said")))
    assert log.count_by_type() == {"Said": 2, "Heard": 1}


def test_an_empty_log_ends_at_zero_in_its_first_epoch(log: LogStore) -> None:
    head = log.head()
    assert (head.epoch, head.position) == (1, 0)
    assert whole(log) == []
    assert log.stream_version(ANA) == 0


# -- time --------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", sorted(FACTORIES))
@given(
    steps=st.lists(st.tuples(st.integers(-5, 20), st.integers(1, 3)), max_size=12),
    asked=st.lists(st.integers(-10, 250), min_size=1, max_size=8),
)
@settings(max_examples=50)
def test_the_position_at_an_instant_is_the_last_one_recorded_by_then(
    store: str, steps: list[tuple[int, int]], asked: list[int]
) -> None:
    clock = FakeClock()
    with fresh(store) as factory:
        log = factory.open(clock=clock)
        for i, (micros, size) in enumerate(steps):
            clock.move(micros)
            write(log, append(f"s/{i}", 0, *(event() for _ in range(size))))
        events = whole(log)
        check(events)
        times = [e.recorded_at for e in events]
        for instant in [START + a for a in asked] + times:
            assert log.position_at(Micros(instant)) == bisect_right(times, instant)


# -- cursors -----------------------------------------------------------------------------------


def test_a_cursor_stays_good_while_the_log_grows_and_after_a_restart(
    log: LogStore, store_factory: StoreFactory
) -> None:
    cursors = [log.cursor_at(Position(0))]
    grow(log, [2, 1])
    cursors += [log.cursor_at(Position(n)) for n in range(4)]
    grow(log, [4])
    log = store_factory.reopen(log)
    for cursor in cursors:
        log.verify_cursor(cursor)


def test_a_cursor_holds_the_leaf_hash_of_its_position(log: LogStore) -> None:
    grow(log, [3])
    stored = log.event_at(Position(2))
    assert stored is not None
    assert log.cursor_at(Position(2)) == Cursor(Epoch(1), Position(2), leaf_hash(stored))
    assert log.cursor_at(Position(0)) == Cursor(Epoch(1), Position(0), b"")


def test_no_cursor_can_be_taken_beyond_the_end(log: LogStore) -> None:
    grow(log, [3])
    with pytest.raises(CursorMismatch):
        log.cursor_at(Position(4))


def test_a_restore_is_noticed_by_every_cursor(log: LogStore, store_factory: StoreFactory) -> None:
    grow(log, [3])
    cursors = [log.cursor_at(Position(n)) for n in (0, 1, 3)]
    store_factory.start_epoch()
    for cursor in cursors:
        with pytest.raises(CursorMismatch, match="epoch 2, not 1"):
            log.verify_cursor(cursor)


def test_an_older_copy_put_back_is_noticed(log: LogStore, store_factory: StoreFactory) -> None:
    grow(log, [3])
    store_factory.copy("older")
    grow(log, [2])
    cursor = log.cursor_at(Position(5))
    store_factory.close()
    store_factory.put_back("older")
    log = store_factory.open()
    with pytest.raises(CursorMismatch, match="ends before"):
        log.verify_cursor(cursor)


def test_an_older_copy_put_back_is_noticed_even_after_it_has_grown_again(
    log: LogStore, store_factory: StoreFactory
) -> None:
    grow(log, [3])
    store_factory.copy("older")
    grow(log, [2])
    shared, lost = log.cursor_at(Position(3)), log.cursor_at(Position(5))
    store_factory.close()
    store_factory.put_back("older")
    log = store_factory.open()
    grow(log, [2, 2])
    log.verify_cursor(shared)
    with pytest.raises(CursorMismatch, match="another event"):
        log.verify_cursor(lost)
