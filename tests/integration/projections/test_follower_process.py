"""A process that follows: killed, orphaned and robbed of its files, the read models stay exact."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from app import logs
from app.projections import MODELS, FollowerProcess, Views, content
from app.projections.following import arguments
from tests.unit.projections.accounts import naive
from tests.unit.projections.histories import TestLog
from tests.unit.projections.test_engine import BROKEN

pytestmark = pytest.mark.slow
ENOUGH = 60.0


@pytest.fixture
def said(tmp_path: Path) -> Iterator[Callable[[], str]]:
    """What is in the technical log."""
    logs.configure(tmp_path / "logs")
    yield lambda: (tmp_path / "logs" / "technical.log").read_text("utf-8")
    logs.configure(None)


@contextmanager
def following(history: TestLog, views: Views) -> Iterator[FollowerProcess]:
    bot = history.path.parent
    follower = FollowerProcess(views, MODELS, arguments(bot.parent, bot.name, bot.parent / "logs"))
    follower.start()
    try:
        yield follower
    finally:
        follower.stop()


def until(condition: Callable[[], bool]) -> None:
    """Return when it holds; fail if it never does."""
    deadline = time.monotonic() + ENOUGH
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def process_of(follower: FollowerProcess, other_than: int | None = None) -> psutil.Process:
    """The process that follows now."""
    until(lambda: follower.pid not in {None, other_than})
    return psutil.Process(follower.pid)


def checkpoint(path: Path) -> None:
    """Bring everything from the write-ahead log into the file, and let the next one begin it."""
    with closing(sqlite3.connect(path, timeout=ENOUGH)) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0] == 0


def restarted(follower: FollowerProcess, times: int) -> bool:
    return follower.restarts >= times


def test_what_is_committed_can_be_read(history: TestLog, views: Views) -> None:
    history.chat("ab", turns=3)
    with following(history, views) as follower:
        for _ in range(5):
            assert follower.progress.wait_for(history.chat("abc"), ENOUGH)
            assert content(views) == naive(history.log)
        report = follower.progress.report
        assert report.head == follower.progress.position == history.log.head().position
        assert 0 < report.visible_seconds < ENOUGH
        assert report.names.size == 3
        child = process_of(follower)
        assert child.nice() > 0
    assert not child.is_running()
    assert follower.restarts == 0


def test_one_that_is_killed_is_followed_by_another(
    history: TestLog, views: Views, said: Callable[[], str]
) -> None:
    with following(history, views) as follower:
        killed = None
        for restarts in range(1, 4):
            end = history.chat("abcdef", turns=5)
            process_of(follower, killed)
            killed = follower.pid
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            until(partial(restarted, follower, restarts))
            assert follower.progress.wait_for(end, ENOUGH)
            assert content(views) == naive(history.log)
            until(lambda: said().count("READ_MODELS_BACK") == restarts)  # noqa: B023 - at once
    assert follower.restarts == 3
    assert said().count("BD_THREAD_ERROR doing='follow the log' exit_code=-9") == 3


def test_signals_for_the_server_do_not_end_it(history: TestLog, views: Views) -> None:
    with following(history, views) as follower:
        assert follower.progress.wait_for(history.chat("a"), ENOUGH)
        child = process_of(follower)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            child.send_signal(number)
        assert follower.progress.wait_for(history.chat("b"), ENOUGH)
        assert process_of(follower).pid == child.pid
    assert follower.restarts == 0


def test_one_that_is_stopped_keeps_nobody_from_stopping(
    history: TestLog, views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.projections.following.END_SECONDS", 0.2)
    with following(history, views) as follower:
        assert follower.progress.wait_for(history.chat("a"), ENOUGH)
        child = process_of(follower)
        child.suspend()
        begun = time.monotonic()
        follower.stop()
        assert time.monotonic() - begun < ENOUGH / 4
    assert not child.is_running()


ORPHANED = """
import sys, threading
from pathlib import Path
from app.projections import MODELS, FollowerProcess, Views
from app.projections.following import arguments
bot = Path(sys.argv[1])
views = Views(bot / "views.db")
follower = FollowerProcess(views, MODELS, arguments(bot.parent, bot.name, bot.parent / "logs"))
follower.start()
assert follower.progress.wait_for(1, 60)
print(follower.pid, flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("state", ["at work", "stopped"])
def test_it_ends_with_whoever_started_it(history: TestLog, state: str) -> None:
    history.chat("a")
    command = [sys.executable, "-c", ORPHANED, str(history.path.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        child = psutil.Process(int(server.stdout.readline()))
        if state == "stopped":
            child.suspend()
        server.kill()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize("loss", ["deleted", "damaged", "emptied", "an older one"])
def test_the_server_goes_over_to_the_file_that_it_makes(
    history: TestLog, views: Views, loss: str
) -> None:
    with following(history, views) as follower:
        assert follower.progress.wait_for(history.chat("ab"), ENOUGH)
        before = views.file
        if loss == "deleted":
            views.path.unlink()
        elif loss == "emptied":
            os.truncate(views.path, 0)
        elif loss == "an older one":
            checkpoint(views.path)
            older = shutil.copy(views.path, views.path.with_name("older.db"))
            assert follower.progress.wait_for(history.chat("abc", turns=9), ENOUGH)
            checkpoint(views.path)  # what comes now is all that the write-ahead log holds
            assert follower.progress.wait_for(history.chat("a"), ENOUGH)
            Path(older).replace(views.path)
        else:
            for suffix in ("", "-wal"):
                part = views.path.with_name(views.path.name + suffix)
                part.write_bytes(b"x" * part.stat().st_size)
        until(lambda: follower.progress.wait_for(history.chat("c"), 0.1) and views.file != before)
        assert follower.progress.wait_for(history.log.head().position, ENOUGH)
        assert content(views) == naive(history.log)
    assert follower.restarts == 0


def test_a_log_that_was_moved_away_is_not_made_anew(
    history: TestLog, views: Views, said: Callable[[], str]
) -> None:
    aside = history.path.with_name("aside.db")
    with following(history, views) as follower:
        assert follower.progress.wait_for(history.chat("a"), ENOUGH)
        child = process_of(follower)
        history.path.rename(aside)
        child.kill()
        until(lambda: follower.restarts > 1)
        assert not history.path.exists()
        assert "it is not at its place" in said()
        aside.rename(history.path)
        with closing(TestLog(history.path)) as again:
            assert follower.progress.wait_for(again.chat("b"), ENOUGH)


def test_a_poisoned_model_parks_and_the_others_go_on(
    history: TestLog, views: Views, said: Callable[[], str]
) -> None:
    with following(history, views) as follower:
        end = history.append_raw("a", BROKEN)
        assert follower.progress.wait_for(end, ENOUGH, model="thread_map")
        assert not follower.progress.wait_for(end, ENOUGH, model="token_totals")
        assert follower.progress.numbers()["read_model_stopped_token_totals"] == 1
        assert follower.progress.numbers()["read_model_stopped_thread_map"] == 0
    assert "token_totals" in said(), "what the process logs is in the server's log"


def test_stopping_before_it_has_begun_leaves_nothing_behind(history: TestLog, views: Views) -> None:
    before = set(psutil.Process().children())
    with following(history, views):
        pass
    assert set(psutil.Process().children()) == before
