"""The live follower: what was written can be read, and what goes wrong does not end it."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from app.projections import MODELS, Follower, ReadModel, Views, content, rebuild
from app.projections.engine import Engine
from app.projections.follower import AS_PROCESS
from eventstore.types import Position
from tests.unit.projections.accounts import naive
from tests.unit.projections.histories import TestLog, received
from tests.unit.projections.test_engine import BROKEN
from tests.unit.projections.test_rebuild import NEXT

ENOUGH = 30.0


@contextmanager
def following(
    views: Views, history: TestLog, models: tuple[ReadModel, ...] = MODELS
) -> Iterator[Follower]:
    follower = Follower(history.log, views, models)
    follower.start()
    try:
        yield follower
    finally:
        follower.stop()


def test_a_new_bot_has_read_models_from_the_first_event_on(views: Views, history: TestLog) -> None:
    with following(views, history) as follower:
        for _ in range(20):
            position = history.chat("ab")
            follower.wake(position)
            assert follower.progress.wait_for(position, ENOUGH)
            assert follower.progress.position >= position
            assert content(views) == naive(history.log)
    assert [status.lag for status in follower.lag()] == [0] * len(MODELS)


def test_commits_that_nobody_told_of_are_followed_as_well(views: Views, history: TestLog) -> None:
    with following(views, history) as follower:
        assert follower.progress.wait_for(history.chat("a"), ENOUGH)


def test_waiting_for_what_does_not_come_ends(views: Views, history: TestLog) -> None:
    with following(views, history) as follower:
        end = history.chat("a")
        assert follower.progress.wait_for(end, ENOUGH)
        assert not follower.progress.wait_for(Position(end + 1), 0.01)


def test_waiting_for_a_parked_model_ends_at_once_and_the_other_goes_on(
    views: Views, history: TestLog
) -> None:
    with following(views, history) as follower:
        end = history.append_raw("a", BROKEN)
        assert follower.progress.wait_for(end, ENOUGH, model="thread_map")
        assert not follower.progress.wait_for(end, ENOUGH, model="token_totals")
        assert follower.progress.wait_for(history.chat("b"), ENOUGH, model="thread_map")


def test_stopping_lets_go_of_who_waits(views: Views, history: TestLog) -> None:
    answers: list[bool] = []
    with following(views, history) as follower:
        waiter = threading.Thread(
            target=lambda: answers.append(follower.progress.wait_for(Position(99), ENOUGH))
        )
        waiter.start()
    waiter.join(ENOUGH)
    assert answers == [False]


def test_a_new_version_is_rebuilt_and_then_followed(views: Views, history: TestLog) -> None:
    history.chat("ab")
    rebuild(views, history.log, MODELS)
    with following(views, history, NEXT) as follower:
        with follower.progress._changed:
            assert follower.progress._changed.wait_for(
                lambda: views.standings()["thread_map"].version == NEXT[0].version, ENOUGH
            )
        assert follower.progress.wait_for(history.chat("c"), ENOUGH)
    assert content(views) == naive(history.log)


def test_a_log_that_is_not_the_cursors_is_followed_from_its_start(
    views: Views, history: TestLog
) -> None:
    history.chat("ab")
    rebuild(views, history.log, MODELS)
    with views.transaction() as db:
        db.execute("UPDATE cursors SET leaf = x'00'")
        db.execute("UPDATE token_totals SET total = 77")
    with following(views, history) as follower:
        with follower.progress._changed:
            assert follower.progress._changed.wait_for(
                lambda: views.standings()["thread_map"].cursor.leaf != b"\0", ENOUGH
            )
        assert follower.progress.wait_for(history.log.head().position, ENOUGH)
    assert content(views) == naive(history.log)


def test_another_process_that_catches_up_at_the_same_time_does_no_harm(
    views: Views, history: TestLog
) -> None:
    rebuild(views, history.log, MODELS)
    other = Views(views.path)
    with following(views, history) as follower:
        for _ in range(20):
            position = history.append("a", received())
            Engine(other, history.log, MODELS).advance()
            assert follower.progress.wait_for(position, ENOUGH)
    other.close()
    assert content(views) == naive(history.log)


def test_an_error_of_the_disk_is_outlived(views: Views, history: TestLog) -> None:
    failures = [OSError("once")]

    def failing(step: str) -> None:
        if step == "begun" and failures:
            raise failures.pop()

    history.chat("ab")
    follower = Follower(history.log, views, MODELS, at_step=failing)
    follower.start()
    assert follower.progress.wait_for(history.log.head().position, ENOUGH)
    follower.stop()
    assert not failures
    assert content(views) == naive(history.log)


@pytest.mark.parametrize(
    "loss", ["deleted", "replaced by garbage", "overwritten", "a directory", "its -wal alone"]
)
def test_a_file_lost_under_the_follower_is_made_again(
    views: Views, history: TestLog, loss: str
) -> None:
    with following(views, history) as follower:
        assert follower.progress.wait_for(history.chat("ab"), ENOUGH)
        if loss == "overwritten":
            for suffix in ("", "-wal"):
                part = views.path.with_name(views.path.name + suffix)
                part.write_bytes(b"x" * part.stat().st_size)
        elif loss == "its -wal alone":
            views.path.with_name(f"{views.path.name}-wal").unlink()
        else:
            views.path.unlink()
        if loss == "a directory":
            views.path.mkdir()
        if loss == "replaced by garbage":
            views.path.write_bytes(b"x" * 8192)
        end = history.chat("c")
        follower.wake(end)
        waiting(lambda: is_at(views, end))
    if loss == "overwritten":
        assert list(views.path.parent.glob("views.db.damaged-*"))
    beside = Views(views.path)
    assert content(beside) == naive(history.log)
    beside.close()


def test_an_older_copy_written_into_the_file_is_noticed_and_nothing_of_it_is_read(
    tmp_path: Path, history: TestLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.projections.views._CALM_SECONDS", 0)
    with closing(Views(tmp_path / "views.db")) as views:
        with following(views, history) as follower:
            assert follower.progress.wait_for(history.chat("ab"), ENOUGH)
            follower.stop()
        older = copied(views)
        with following(views, history) as follower:
            assert follower.progress.wait_for(history.chat("abcd", turns=5), ENOUGH)
            follower.stop()
        copied(views)
        with following(views, history) as follower:
            assert follower.progress.wait_for(history.chat("c"), ENOUGH)
            views.path.write_bytes(older)  # the file stays the same one, and so does its -wal
            waiting(lambda: bool(list(tmp_path.glob("views.db.damaged-*"))))
            assert follower.progress.wait_for(history.chat("d"), ENOUGH)
            waiting(lambda: is_at(views, history.log.head().position))
            assert content(views) == naive(history.log)


def copied(views: Views) -> bytes:
    """Bring all of the write-ahead log into the file; return what is in it then."""
    with views.transaction() as db:
        db.execute("DELETE FROM cursors WHERE 0")
    views._writer.execute("PRAGMA wal_checkpoint(RESTART)")
    views._contents.note()
    return views.path.read_bytes()


@pytest.mark.parametrize("emptied", [True, False])
def test_an_error_of_a_file_that_was_emptied_does_not_pass_for_a_new_one(
    views: Views, history: TestLog, *, emptied: bool
) -> None:
    rebuild(views, history.log, MODELS)
    views._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    if emptied:
        views.path.write_bytes(b"")
    assert views.replace_if_damaged(error) == emptied
    assert (not views.standings()) == emptied


def test_a_file_that_another_process_put_in_place_is_followed_from_there(
    views: Views, history: TestLog
) -> None:
    with following(views, history) as follower:
        assert follower.progress.wait_for(history.chat("ab"), ENOUGH)
        for suffix in ("", "-wal", "-shm"):
            views.path.with_name(views.path.name + suffix).unlink(missing_ok=True)
        other = Views(views.path)
        rebuild(other, history.log, MODELS)
        end = history.chat("c")
        follower.wake(end)
        waiting(lambda: is_at(other, end))
        assert content(other) == naive(history.log)
        other.close()


def is_at(views: Views, end: Position) -> bool:
    """Whether what any process reads of the file reflects a position."""
    try:
        beside = Views(views.path)
    except sqlite3.Error:
        return False
    try:
        found = beside.standings()
        return len(found) == len(MODELS) and all(s.cursor.position >= end for s in found.values())
    except sqlite3.Error:
        return False
    finally:
        beside.close()


def waiting(condition: Callable[[], bool]) -> None:
    """Return when it holds; fail if it never does."""
    deadline = time.monotonic() + ENOUGH
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


def test_two_large_batches_in_a_row_are_a_flood_and_one_may_be_a_burst(
    views: Views, history: TestLog
) -> None:
    follower = Follower(history.log, views, MODELS, pace=AS_PROCESS)

    def rest_after(size: int, took: float) -> float:
        follower._engine.size = size
        return follower._rest(took)

    assert rest_after(40, 0.002) == pytest.approx(0.02)
    assert rest_after(9_000, 0.15) == AS_PROCESS.longest
    assert rest_after(9_000, 0.15) == pytest.approx(0.9)
    assert rest_after(9_000, 0.30) == AS_PROCESS.longest_in_flood
    assert rest_after(40, 0.30) == AS_PROCESS.longest
    follower.progress.end()
