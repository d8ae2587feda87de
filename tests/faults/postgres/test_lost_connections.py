"""The connection is lost before, during and after COMMIT: never lost, never doubled."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest

from eventstore.errors import EventStoreError, LogUnavailable
from eventstore.postgres import PostgresLog
from eventstore.store import Beat
from eventstore.types import Append, Appended, Micros
from eventstore.writer import Writer
from tests.conformance.appends import ANA, BEN, append, check, done, event, grow, whole
from tests.faults.postgres.stage import HASTIEST, Stage
from tests.faults.postgres.traffic import Traffic

BEAT = Beat("node-1", "first", "1.0", Micros(1))
When = Literal["before", "after"]


def written(stage: Stage, wanted: Append) -> list[bytes]:
    """The states of an append's events that are in the log."""
    return [e.state for e in whole(stage.truth) if e.append_id == wanted.append_id]


@pytest.mark.parametrize("beats", [(), (BEAT,)], ids=["alone", "with a beat"])
def test_an_append_whose_request_never_arrived_was_not_made(
    stage: Stage, beats: Sequence[Beat]
) -> None:
    log = stage.open()
    grow(log, [2])
    wanted = append(ANA, 2, event("lost"))
    trap = stage.proxy.cut_around(wanted.append_id, "before")
    [answer] = log.append_batch([wanted], beats=beats)
    assert trap.sprung.is_set()
    assert type(answer) is LogUnavailable
    assert "nothing was appended" in str(answer)
    grow(log, [1, 1])
    assert written(stage, wanted) == []
    check(whole(stage.truth))


def test_an_append_whose_answer_was_lost_was_made(stage: Stage) -> None:
    log = stage.open()
    grow(log, [2])
    one, two = append(ANA, 2, event("kept"), event("too")), append(BEN, 0, event("also"))
    trap = stage.proxy.cut_around(one.append_id, "after")
    answers = [done(a) for a in log.append_batch([one, two])]
    assert trap.sprung.is_set()
    assert [(a.first_position, a.last_position, a.version) for a in answers] == [
        (3, 4, 4),
        (5, 5, 1),
    ]
    assert written(stage, one) == [b"kept", b"too"]
    assert written(stage, two) == [b"also"]
    grow(log, [1], ANA)
    check(whole(stage.truth))


@pytest.mark.parametrize(("when", "type_"), [("before", LogUnavailable), ("after", Appended)])
def test_a_commit_that_stands_by_itself_is_settled_as_well(
    stage: Stage, when: When, type_: type[object]
) -> None:
    log = stage.open()
    grow(log, [2])
    wanted = append(ANA, 2, event("a"))
    trap = stage.proxy.cut_around(b"COMMIT", when)
    [answer] = log.append_batch([wanted], beats=[BEAT])
    assert trap.sprung.is_set()
    assert type(answer) is type_
    assert len(written(stage, wanted)) == (when == "after")
    grow(log, [1, 1])
    check(whole(stage.truth))


def test_the_first_append_of_a_process_is_settled_too(stage: Stage) -> None:
    log = stage.open()
    wanted = append()
    stage.proxy.cut_around(wanted.append_id, "after")
    [answer] = log.append_batch([wanted])
    assert done(answer).first_position == 1


def test_a_refusal_whose_answer_was_lost_is_not_taken_for_done(stage: Stage) -> None:
    log = stage.open()
    grow(log, [2])
    late = append(ANA, 1)
    stage.proxy.cut_around(late.append_id, "after")
    [answer] = log.append_batch([late])
    assert isinstance(answer, EventStoreError)
    assert len(whole(stage.truth)) == 2


def test_a_server_process_that_was_left_behind_cannot_append_after_its_caller_was_refused(
    stage: Stage,
) -> None:
    log = stage.open()
    grow(log, [1])
    wanted = append(ANA, 1, event("late"))
    with ThreadPoolExecutor(1) as pool:
        with stage.head_locked():
            answer = pool.submit(log.append_batch, [wanted])
            stage.wait_for_waiters()
            stage.proxy.cut()  # the server's process waits for the lock, and does not notice
            [told] = answer.result()
        assert type(told) is LogUnavailable
    grow(log, [1, 1])
    assert written(stage, wanted) == []
    check(whole(stage.truth))


def test_a_connection_that_is_dead_without_a_word_is_given_up_and_replaced(stage: Stage) -> None:
    log = stage.open()
    grow(log, [1])
    stage.proxy.strand()
    [answer] = log.append_batch([append(ANA, 1)])
    assert type(answer) is LogUnavailable
    grow(log, [1, 1])
    check(whole(stage.truth))


def test_a_connection_that_ended_while_nobody_used_it_leaves_nothing_unknown(stage: Stage) -> None:
    log = stage.open()
    grow(log, [1])
    stage.proxy.cut()
    [answer] = log.append_batch([append(ANA, 1)])
    assert done(answer).version == 2
    stage.proxy.refuse()
    [answer] = log.append_batch([append(ANA, 2)])
    assert type(answer) is LogUnavailable


def test_a_log_that_cannot_be_reached_says_so_and_comes_back_by_itself(stage: Stage) -> None:
    log = stage.open(HASTIEST)
    grow(log, [1])
    stage.proxy.refuse()
    with pytest.raises(LogUnavailable, match="cannot be reached"):
        log.head()
    writer = Writer(log)
    for _ in range(3):
        with pytest.raises(LogUnavailable, match=r"cannot be reached.*nothing was appended"):
            writer.append_blocking(append(ANA, 1))
    assert failing(writer)
    stage.proxy.accept()
    assert eventually(writer, append(ANA, 1)).version == 2
    assert not failing(writer)
    assert log.head().position == 2
    writer.close()


def failing(writer: Writer) -> bool:
    return writer.last_failure is not None


def eventually(writer: Writer, wanted: Append) -> Appended:
    """The answer, as soon as the log takes the append."""
    while True:
        try:
            return writer.append_blocking(wanted)
        except LogUnavailable:
            continue


@pytest.mark.slow
def test_under_traffic_connections_may_break_at_any_moment(stage: Stage) -> None:
    chance = random.Random(7)
    readers: list[PostgresLog] = [stage.open(), stage.open()]
    with Traffic(stage.open(HASTIEST), readers=readers) as traffic:
        for _ in range(40):
            traffic.flow(chance.randrange(1, 30))
            stage.proxy.cut()
        stage.proxy.refuse()
        traffic.suffer()
        stage.proxy.accept()
        traffic.flow()
        traffic.check_against(stage.truth)
