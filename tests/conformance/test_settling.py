"""When a COMMIT fails, its callers hear what is true, and the log goes on."""

from __future__ import annotations

from typing import Literal

import pytest

from eventstore.errors import Conflict, DuplicateKey, LogUnavailable, OutcomeUnknown
from eventstore.store import LogStore
from eventstore.types import Appended, NewEvent
from eventstore.writer import Writer
from tests.conformance.appends import ANA, BEN, append, check, done, event, grow, key, whole, write
from tests.conformance.stores import StoreFactory

LARGE = b"." * 500_000


def test_a_commit_that_was_done_before_the_connection_was_lost_is_found(
    log: LogStore, store_factory: StoreFactory
) -> None:
    grow(log, [2, 1])
    store_factory.break_commit(log, "after", store_factory.commit_error())
    one, two = append(ANA, 3, event(), event(keyed="k")), append(BEN, 0)
    answers = log.append_batch([one, two])
    assert [(a.first_position, a.last_position, a.version) for a in map(done, answers)] == [
        (4, 5, 5),
        (6, 6, 1),
    ]
    stored = whole(log)
    assert [a.recorded_at for a in map(done, answers)] == [
        stored[4].recorded_at,
        stored[5].recorded_at,
    ]
    assert [e.append_id for e in stored[3:]] == [one.append_id] * 2 + [two.append_id]


def test_the_first_commit_of_a_process_is_found_too(
    log: LogStore, store_factory: StoreFactory
) -> None:
    grow(log, [5] * 30)
    log = store_factory.reopen(log)
    store_factory.break_commit(log, "after", store_factory.commit_error())
    answers = log.append_batch([append(f"user/{i}", 0, event(), event()) for i in range(50)])
    assert [done(a).first_position for a in answers] == list(range(151, 251, 2))


def test_a_commit_that_was_not_done_appended_nothing(
    log: LogStore, store_factory: StoreFactory
) -> None:
    grow(log, [1])
    before = store_factory.everything()
    store_factory.break_commit(log, "before", store_factory.commit_error())
    answers = log.append_batch([append(ANA, 1), append(BEN, 0)])
    assert [type(a) for a in answers] == [LogUnavailable, LogUnavailable]
    assert store_factory.everything() == before


@pytest.mark.parametrize("how", ["before", "after"])
def test_a_refusal_in_a_lost_commit_is_not_taken_for_done(
    log: LogStore, store_factory: StoreFactory, how: Literal["before", "after"]
) -> None:
    write(log, append(ANA, 0, event(keyed="k")))
    store_factory.break_commit(log, how, store_factory.commit_error())
    conflict, duplicate, _ = log.append_batch(
        [append(ANA, 0), append(BEN, 0, event(keyed="k")), append("user/c", 0)]
    )
    assert isinstance(conflict, (Conflict, LogUnavailable))
    assert isinstance(duplicate, (DuplicateKey, LogUnavailable))


def test_what_could_not_be_settled_is_said_to_be_unknown(
    log: LogStore, store_factory: StoreFactory
) -> None:
    store_factory.break_commit(log, "for good", store_factory.commit_error())
    [answer] = log.append_batch([append()])
    assert isinstance(answer, OutcomeUnknown)
    again = store_factory.open()
    assert again.head().position == 1


@pytest.mark.parametrize("how", ["before", "after"])
def test_the_log_goes_on_after_a_lost_commit(
    log: LogStore, store_factory: StoreFactory, how: Literal["before", "after"]
) -> None:
    grow(log, [1])
    store_factory.break_commit(log, how, store_factory.commit_error())
    log.append_batch([append(ANA, 1, event(keyed="k"), event())])
    grow(log, [1, 2], ANA)
    grow(log, [3], BEN)
    assert (log.event_by_key(key("k")) is not None) == (how == "after")
    check(whole(log))


def test_an_error_nobody_foresaw_appends_nothing_and_does_not_stop_the_log(
    log: LogStore, store_factory: StoreFactory
) -> None:
    store_factory.break_commit(log, "before", ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        log.append_batch([append()])
    assert log.head().position == 0
    grow(log, [1, 1])
    check(whole(log))


def test_a_full_disk_is_said_to_each_caller_and_ends_when_there_is_room(
    log: LogStore, writer: Writer, store_factory: StoreFactory
) -> None:
    grow(log, [3])
    store_factory.fill_disk(log)
    before = store_factory.everything()
    large = append(ANA, 3, NewEvent("Said", LARGE))
    for _ in range(2):
        with pytest.raises(LogUnavailable) as full:
            writer.append_blocking(large)
        assert "nothing was appended" in str(full.value)
    assert store_factory.everything() == before
    assert len(whole(log)) == 3
    store_factory.make_room(log)
    assert writer.append_blocking(large).version == 4
    check(whole(log))


def test_on_a_full_disk_nothing_of_a_commit_remains(
    log: LogStore, store_factory: StoreFactory
) -> None:
    store_factory.fill_disk(log)
    answers = log.append_batch([append(ANA, 0), append(BEN, 0, NewEvent("Said", LARGE))])
    assert [type(a) for a in answers] == [LogUnavailable, LogUnavailable]
    assert list(log.streams()) == []
    store_factory.make_room(log)
    assert [type(a) for a in log.append_batch([append(ANA, 0), append(BEN, 0)])] == [Appended] * 2


def test_a_log_that_is_closed_says_so(store_factory: StoreFactory) -> None:
    log = store_factory.open()
    grow(log, [1])
    log.close()
    log.close()
    for ask in (log.head, log.read, lambda: log.stream_version(ANA), log.watch):
        with pytest.raises(LogUnavailable):
            ask()
