"""Group commit by itself: order, batches, failures, and that every caller is answered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for

import pytest

from eventstore.errors import Conflict, LogUnavailable, OutcomeUnknown, QueueFull
from eventstore.group_commit import GroupCommit
from eventstore.types import StreamName, Version

PATIENCE = 30.0
CONFLICT = Conflict(StreamName("a"), Version(1), Version(2))


class Disk:
    """Doubles each request; holds every commit until it is let go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.finished = 0
        self.arrived = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.answer: Callable[[Sequence[int]], Sequence[int | Exception]] = _double

    def commit(self, requests: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(requests))
        self.arrived.release()
        assert self.go_on.acquire(timeout=PATIENCE)
        answers = self.answer(requests)
        self.finished += 1
        return answers

    def wait(self) -> None:
        assert self.arrived.acquire(timeout=PATIENCE)


def _double(requests: Sequence[int]) -> list[int | Exception]:
    return [2 * request for request in requests]


@pytest.fixture
def disk() -> Disk:
    return Disk()


async def test_what_waits_is_committed_together_in_the_order_of_asking(disk: Disk) -> None:
    group: GroupCommit[int, int] = GroupCommit(disk.commit, name="test")
    first = group.submit(0)
    await asyncio.to_thread(disk.wait)
    others = [group.submit(n) for n in range(1, 6)]
    disk.go_on.release(2)
    assert await asyncio.gather(first, *others) == [0, 2, 4, 6, 8, 10]
    assert disk.batches == [[0], [1, 2, 3, 4, 5]]
    group.close()


async def test_a_batch_is_no_larger_than_it_may_be(disk: Disk) -> None:
    group: GroupCommit[int, int] = GroupCommit(disk.commit, name="test", max_batch=2)
    first = group.submit(0)
    await asyncio.to_thread(disk.wait)
    others = [group.submit(n) for n in range(1, 6)]
    disk.go_on.release(9)
    assert await asyncio.gather(first, *others) == [0, 2, 4, 6, 8, 10]
    assert disk.batches == [[0], [1, 2], [3, 4], [5]]
    group.close()


async def test_an_answer_that_is_an_error_fails_its_caller_alone(disk: Disk) -> None:
    disk.answer = lambda requests: [CONFLICT if n == 2 else n for n in requests]
    group: GroupCommit[int, int] = GroupCommit(disk.commit, name="test")
    disk.go_on.release(9)
    answers = await asyncio.gather(*(group.submit(n) for n in (1, 2, 3)), return_exceptions=True)
    assert answers == [1, CONFLICT, 3]
    group.close()


async def test_a_commit_that_raises_fails_its_batch_and_not_the_next(disk: Disk) -> None:
    def broken(_: Sequence[int]) -> list[int | Exception]:
        msg = "broken"
        raise ZeroDivisionError(msg)

    group: GroupCommit[int, int] = GroupCommit(disk.commit, name="test")
    disk.answer = broken
    disk.go_on.release()
    with pytest.raises(ZeroDivisionError, match="broken"):
        await group.submit(1)
    disk.answer = _double
    disk.go_on.release()
    assert await group.submit(1) == 2
    assert group.waiting == 0
    group.close()


@pytest.mark.parametrize("answers", [[], [1], [1, 2, 3]])
async def test_answers_that_do_not_match_the_requests_leave_nobody_waiting(
    disk: Disk, answers: list[int]
) -> None:
    group: GroupCommit[int, int] = GroupCommit(disk.commit, name="test")
    first = group.submit(0)
    await asyncio.to_thread(disk.wait)
    pair = [group.submit(1), group.submit(2)]
    disk.go_on.release()
    await first
    await asyncio.to_thread(disk.wait)
    disk.answer = lambda _: answers
    disk.go_on.release()
    heard = await asyncio.gather(*pair, return_exceptions=True)
    assert [type(a) for a in heard] == [OutcomeUnknown] * 2
    disk.answer = _double
    disk.go_on.release()
    assert await group.submit(4) == 8
    group.close()


async def test_the_request_over_capacity_is_refused_until_there_is_room(disk: Disk) -> None:
    group: GroupCommit[int, int] = GroupCommit(disk.commit, name="test", capacity=2)
    waiting = [group.submit(1), group.submit(2)]
    assert group.waiting == 2
    with pytest.raises(QueueFull):
        group.submit(3)
    disk.go_on.release(9)
    assert await asyncio.gather(*waiting) == [2, 4]
    assert await group.submit(3) == 6
    assert sorted(n for batch in disk.batches for n in batch) == [1, 2, 3]
    group.close()


async def test_a_caller_who_left_does_not_keep_the_others_from_their_answers(disk: Disk) -> None:
    group: GroupCommit[int, int] = GroupCommit(disk.commit, name="test")
    left, stays = group.submit(1), group.submit(2)
    left.cancel()
    disk.go_on.release(2)
    assert await stays == 4
    assert group.waiting == 0
    group.close()


def test_a_loop_that_was_closed_does_not_stop_the_thread(disk: Disk) -> None:
    group: GroupCommit[int, int] = GroupCommit(disk.commit, name="test")

    async def ask_and_leave() -> None:
        group.submit(1)

    asyncio.run(ask_and_leave())
    disk.go_on.release(2)
    assert group.submit_blocking(2) == 4
    group.close()


def test_a_thread_without_a_loop_waits_for_its_answer(disk: Disk) -> None:
    group: GroupCommit[int, int] = GroupCommit(disk.commit, name="test")
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(group.submit_blocking, n) for n in range(4)]
        disk.wait()
        assert not any(answer.done() for answer in answers)
        disk.go_on.release(9)
        done, _ = wait_for(answers, PATIENCE)
    assert sorted(answer.result() for answer in done) == [0, 2, 4, 6]
    disk.answer = lambda _: [CONFLICT]
    with pytest.raises(Conflict):
        group.submit_blocking(1)
    group.close()


async def test_closing_answers_what_waits_and_takes_nothing_new(disk: Disk) -> None:
    group: GroupCommit[int, int] = GroupCommit(disk.commit, name="test", max_batch=1)
    waiting = [group.submit(n) for n in range(4)]
    disk.go_on.release(9)
    await asyncio.to_thread(group.close)
    assert await asyncio.gather(*waiting) == [0, 2, 4, 6]
    with pytest.raises(LogUnavailable, match="closed"):
        group.submit(5)
    group.close()


async def test_closing_returns_only_when_the_last_commit_is_done(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    group: GroupCommit[int, int] = GroupCommit(disk.commit, name="test")
    answer = group.submit(1)
    join = group._thread.join

    def let_go_and_join() -> None:  # nothing lets the commit go on before `close` waits for it
        disk.go_on.release()
        join()

    monkeypatch.setattr(group._thread, "join", let_go_and_join)
    group.close()
    assert disk.finished == 1
    assert await answer == 2
