"""What an append promises: its unit, its time, its answers, and that it harms nobody else."""

from __future__ import annotations

import random
import string

import pytest

from eventstore.errors import (
    AppendRejected,
    Conflict,
    DuplicateKey,
    EpochMismatch,
)
from eventstore.soundness import MAX_NAME_BYTES
from eventstore.store import LogStore
from eventstore.types import (
    MAX_EVENTS_PER_APPEND,
    MAX_STATE_BYTES,
    Append,
    Appended,
    AppendId,
    IdempotencyKey,
    Micros,
    NewEvent,
    Position,
    Version,
)
from tests.conformance.appends import (
    ANA,
    BEN,
    FIRST_EPOCH,
    append,
    check,
    done,
    event,
    grow,
    key,
    whole,
    write,
)
from tests.conformance.stores import START, FakeClock, StoreFactory

# -- the unit ----------------------------------------------------------------------------------


def test_the_events_of_an_append_share_one_time_and_one_append_id(log: LogStore) -> None:
    wanted = append(ANA, 0, event("a"), event("b"), event("c"))
    answer = write(log, wanted)[0]
    events = log.read()
    assert {(e.recorded_at, e.append_id) for e in events} == {
        (answer.recorded_at, wanted.append_id)
    }


def test_an_append_is_answered_with_where_and_when_it_stands(log: LogStore) -> None:
    first, second = write(
        log, append(ANA, 0, event(), event()), append(BEN, 0, event(), event(), event())
    )
    assert first == Appended(FIRST_EPOCH, Position(1), Position(2), Version(2), START)
    assert second == Appended(FIRST_EPOCH, Position(3), Position(5), Version(3), Micros(START + 1))


def test_what_was_appended_is_read_back_as_it_was_given(log: LogStore) -> None:
    given = (
        NewEvent("Said", b"\x00\xff state", key("a")),
        NewEvent("Said@2", b"", None),
    )
    wanted = append("jobs/ñandú 🦤", 0, *given)
    write(log, wanted)
    events = whole(log)
    assert [NewEvent(e.type, e.state, e.key) for e in events] == list(given)
    assert {e.stream for e in events} == {wanted.stream}
    assert events == log.read_stream(wanted.stream)


def test_every_stream_counts_its_own_versions(log: LogStore) -> None:
    grow(log, [2, 3], ANA)
    grow(log, [1], BEN)
    grow(log, [1], ANA)
    assert (log.stream_version(ANA), log.stream_version(BEN)) == (6, 1)
    check(whole(log))


def test_names_and_keys_may_be_as_long_as_is_allowed(log: LogStore) -> None:
    name = "".join(random.Random(1).choices(string.ascii_letters, k=MAX_NAME_BYTES))
    write(log, append(name, 0, NewEvent(name, b"", IdempotencyKey(name.encode()))))
    check(whole(log))


def test_an_append_of_the_greatest_size_goes_through_whole(log: LogStore) -> None:
    answer = grow(log, [MAX_EVENTS_PER_APPEND])[0]
    assert answer.last_position == MAX_EVENTS_PER_APPEND
    check(whole(log))


@pytest.mark.parametrize(
    "malformed",
    [
        Append(ANA, Version(0), (), FIRST_EPOCH, AppendId(b"i" * 16)),
        append(ANA, 0, *(event() for _ in range(MAX_EVENTS_PER_APPEND + 1))),
        append(ANA, 0, NewEvent("Said", b"x" * (MAX_STATE_BYTES + 1))),
        append("", 0),
        append("user/\ud800", 0),
        append("user/\0", 0),
        append("user/" + "é" * 500, 0),
        append(ANA, 0, event(kind="")),
        append(ANA, 0, event(kind="\ud800")),
        append(ANA, 0, event(kind="ñ\0")),
        append(ANA, 0, *[NewEvent("Said", b"x" * MAX_STATE_BYTES)] * 17),
        append(ANA, 0, NewEvent("Said", b"", IdempotencyKey(b"k" * 1001))),
        Append(ANA, Version(0), (event(),), FIRST_EPOCH, AppendId(b"short")),
        append(ANA, 0, event(keyed="twice"), event(keyed="twice")),
    ],
    ids=[
        "empty",
        "too-many-events",
        "state-too-large",
        "no-stream",
        "stream-is-not-text",
        "stream-has-a-zero",
        "stream-too-long",
        "no-type",
        "type-is-not-text",
        "type-has-a-zero",
        "states-too-large-together",
        "key-too-long",
        "short-append-id",
        "its-own-key-twice",
    ],
)
def test_a_malformed_append_is_refused_and_harms_nobody_in_its_commit(
    log: LogStore, malformed: Append
) -> None:
    before, bad, after = log.append_batch([append("a", 0), malformed, append("b", 0)])
    assert isinstance(bad, AppendRejected)
    assert done(before).last_position == 1
    assert done(after).last_position == 2


# -- time --------------------------------------------------------------------------------------


def test_time_moves_on_by_a_microsecond_when_the_clock_stands_still(log: LogStore) -> None:
    times = [a.recorded_at for a in write(log, *(append(f"user/{i}") for i in range(4)))]
    assert times == [START, START + 1, START + 2, START + 3]


def test_time_never_goes_back_with_the_clock(log: LogStore, clock: FakeClock) -> None:
    first = grow(log, [1])[0]
    clock.move(-3_600_000_000)
    second = grow(log, [1])[0]
    clock.move(+7_200_000_000)
    third = grow(log, [1])[0]
    assert second.recorded_at == first.recorded_at + 1
    assert third.recorded_at == clock.now
    assert log.head().recorded_at == third.recorded_at


def test_time_never_goes_back_after_a_restart_with_a_clock_that_is_behind(
    store_factory: StoreFactory,
) -> None:
    log = store_factory.open(clock=FakeClock())
    first = grow(log, [1])[0]
    log = store_factory.reopen(log, clock=FakeClock(Micros(START - 10_000_000)))
    assert grow(log, [1])[0].recorded_at > first.recorded_at
    assert log.now() > first.recorded_at


def test_time_never_goes_back_between_two_stores_whose_clocks_differ(
    store_factory: StoreFactory,
) -> None:
    ahead = store_factory.open(clock=FakeClock(Micros(START + 1_000_000)))
    behind = store_factory.open(clock=FakeClock())
    for _ in range(3):
        grow(ahead, [1])
        grow(behind, [1])
    check(whole(ahead))


# -- versions, epochs, keys --------------------------------------------------------------------


@pytest.mark.parametrize("expected", [0, 1, 3, 99])
def test_an_append_at_another_version_than_the_stream_s_is_a_conflict(
    log: LogStore, expected: int
) -> None:
    grow(log, [2])
    answer = log.append_batch([append(ANA, expected)])[0]
    assert isinstance(answer, Conflict)
    assert (answer.stream, answer.expected, answer.actual) == (ANA, expected, 2)
    assert log.head().position == 2


def test_a_new_stream_starts_at_version_one_and_nowhere_else(log: LogStore) -> None:
    answer = log.append_batch([append(ANA, 1)])[0]
    assert isinstance(answer, Conflict)
    assert answer.actual == 0


def test_a_conflict_fails_its_caller_alone(log: LogStore) -> None:
    grow(log, [1], ANA)
    answers = log.append_batch(
        [append(BEN, 0), append(ANA, 0), append(ANA, 1), append(ANA, 1), append(BEN, 1)]
    )
    assert [type(a) for a in answers] == [Appended, Conflict, Appended, Conflict, Appended]
    check(whole(log))
    assert log.head().position == 4


def test_appends_of_one_commit_see_each_other(log: LogStore) -> None:
    write(log, append(ANA, 0, event(), event()), append(ANA, 2), append(ANA, 3))
    assert log.stream_version(ANA) == 4


def test_a_rejected_append_leaves_no_stream_behind(
    log: LogStore, store_factory: StoreFactory
) -> None:
    grow(log, [1], BEN)
    before = store_factory.everything()
    log.append_batch(
        [append(ANA, 5), append(ANA, 0, epoch=9), append(ANA, 0, absent=["x"], epoch=2)]
    )
    assert store_factory.everything() == before
    assert [s.name for s in log.streams()] == [BEN]
    assert log.stream_version(ANA) == 0


def test_a_rejected_append_does_not_brick_its_stream(log: LogStore) -> None:
    grow(log, [1])
    log.append_batch([append(ANA, 5)])
    log.append_batch([append(BEN, 5)])
    grow(log, [1], ANA)
    grow(log, [1], BEN)
    check(whole(log))


def test_a_caller_of_an_earlier_epoch_is_refused_alone(
    log: LogStore, store_factory: StoreFactory
) -> None:
    grow(log, [1])
    store_factory.start_epoch()
    stale, current = log.append_batch([append(ANA, 1), append(ANA, 1, epoch=2)])
    assert isinstance(stale, EpochMismatch)
    assert (stale.expected, stale.actual) == (1, 2)
    assert done(current).epoch == 2
    assert log.head().epoch == 2


def test_a_store_that_missed_a_new_epoch_does_not_refuse_those_who_know_of_it(
    log: LogStore, store_factory: StoreFactory
) -> None:
    grow(log, [1])
    store_factory.start_epoch()
    assert done(log.append_batch([append(ANA, 1, epoch=2)])[0]).epoch == 2


def test_a_key_can_be_appended_once(log: LogStore) -> None:
    write(log, append(ANA, 0, event(keyed="wamid.1")))
    answers = log.append_batch(
        [
            append(ANA, 1, event()),
            append(BEN, 0, event(), event(keyed="wamid.1")),
            append(BEN, 0, event()),
        ]
    )
    assert [type(a) for a in answers] == [Appended, DuplicateKey, Appended]
    assert isinstance(answers[1], DuplicateKey)
    assert answers[1].key == key("wamid.1")
    check(whole(log))


def test_of_two_appends_with_one_key_in_one_commit_the_first_wins(log: LogStore) -> None:
    answers = log.append_batch(
        [
            append(ANA, 0, event(keyed="k")),
            append(BEN, 0, event(keyed="k")),
            append("c", 0, event(keyed="other")),
        ]
    )
    assert [type(a) for a in answers] == [Appended, DuplicateKey, Appended]
    found = log.event_by_key(key("k"))
    assert found is not None
    assert found.stream == ANA


def test_if_the_first_of_two_with_one_key_fails_the_second_is_decided_on_its_own(
    log: LogStore,
) -> None:
    grow(log, [1], ANA)
    answers = log.append_batch([append(ANA, 0, event(keyed="k")), append(BEN, 0, event(keyed="k"))])
    assert [type(a) for a in answers] == [Conflict, Appended]


@pytest.mark.parametrize("keyed", ["a", "b", "c"])
def test_an_append_that_wants_a_key_absent_fails_where_it_is_present(
    log: LogStore, keyed: str
) -> None:
    write(log, append(ANA, 0, event(keyed="a"), event(keyed="b"), event(keyed="c")))
    taken, free = log.append_batch(
        [append(BEN, 0, absent=["x", keyed, "y"]), append(BEN, 0, absent=["x", "y"])]
    )
    assert isinstance(taken, DuplicateKey)
    assert taken.key == key(keyed)
    done(free)


def test_an_append_sees_the_keys_of_those_before_it_in_its_commit_as_present(
    log: LogStore,
) -> None:
    answers = log.append_batch([append(ANA, 0, event(keyed="k")), append(BEN, 0, absent=["k"])])
    assert [type(a) for a in answers] == [Appended, DuplicateKey]


def test_an_append_may_want_absent_what_it_brings(log: LogStore) -> None:
    (answer,) = log.append_batch([append(ANA, 0, event(keyed="k"), absent=["k"])])
    assert isinstance(answer, Appended)


def test_any_number_of_events_have_no_key(log: LogStore) -> None:
    grow(log, [3, 3])
    assert [e.key for e in whole(log)] == [None] * 6


def test_more_keys_than_fit_one_question_are_all_looked_at(log: LogStore) -> None:
    write(log, append(ANA, 0, event(keyed="needle")))
    hay = [f"straw {i}" for i in range(1700)]
    answer = log.append_batch([append(BEN, 0, absent=[*hay, "needle"])])[0]
    assert isinstance(answer, DuplicateKey)


def test_an_empty_batch_is_answered_with_nothing(log: LogStore) -> None:
    assert log.append_batch([]) == []


def test_a_store_decides_on_what_another_store_appended_a_moment_ago(
    store_factory: StoreFactory,
) -> None:
    one, other = store_factory.open(), store_factory.open()
    grow(one, [1])
    grow(other, [1])
    stale, fresh = one.append_batch([append(ANA, 1), append(ANA, 2)])
    assert isinstance(stale, Conflict)
    assert stale.actual == 2
    assert done(fresh).version == 3
    refused = other.append_batch([append(ANA, 2)])[0]  # nothing else in its commit
    assert isinstance(refused, Conflict)
    assert refused.actual == 3


def test_a_large_commit_keeps_every_event_in_its_place(log: LogStore) -> None:
    sizes = (1, 127, 128, 129, 300, 1000, 1)
    write(
        log,
        *(
            append(f"s/{i}", 0, *(event(f"{i} {n}") for n in range(size)))
            for i, size in enumerate(sizes)
        ),
    )
    events = whole(log)
    check(events)
    assert [e.state.decode() for e in events] == [
        f"{i} {n}" for i, size in enumerate(sizes) for n in range(size)
    ]
