"""The bulk process and the follower as real processes, killed with -9 and started again."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from contextlib import closing
from typing import Any

import pytest

from app.aggregates.events import TokensIncremented
from app.lock import exclusive
from app.projections import MODELS, Follower, Views, content, rebuild
from app.projections.bulk import worker_command
from app.projections.rebuild import beside
from tests.unit.projections.accounts import naive
from tests.unit.projections.histories import CODEC, TestLog, received, tokens
from tests.unit.projections.test_engine import BROKEN

ENOUGH = 60.0


def worker(history: TestLog, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Run the worker; return its exit code and what it said."""
    command = worker_command(history.path.parent, "rebuild", ())
    done = subprocess.run([*command, *arguments], stdout=subprocess.PIPE, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def long_history(history: TestLog, events: int) -> None:
    """Write some hundred appends of many events: fast."""
    rng = random.Random(7)
    news = [CODEC.encode(received()), CODEC.encode(tokens("conv_a", 3))] * 400
    while history.log.head().position < events:
        history.append_raw(rng.choice("abcdefgh"), *news)


def test_the_worker_rebuilds_and_says_how_far_it_is(history: TestLog, views: Views) -> None:
    history.chat("abc", turns=3)
    code, lines = worker(history)
    assert code == 0
    assert [line["event"] for line in lines] == [
        "begin",
        *["model"] * len(MODELS),
        "done",
    ]
    assert lines[-1]["position"] == history.log.head().position
    assert content(views) == naive(history.log)
    assert {s.state for s in views.standings().values()} == {"live"}


def test_the_worker_rebuilds_the_one_model_that_is_named(history: TestLog, views: Views) -> None:
    history.chat("a")
    code, _ = worker(history, "--model", "token_totals")
    assert code == 0
    assert list(views.standings()) == ["token_totals"]


@pytest.mark.parametrize("names", [(), ("--model", "token_totals")])
def test_a_live_file_that_turns_out_to_be_damaged_is_put_aside_and_all_are_rebuilt(
    history: TestLog, names: tuple[str, ...]
) -> None:
    path = history.path.with_name("views.db")
    history.chat("abc", turns=3)
    with closing(Views(path)) as views:
        rebuild(views, history.log, MODELS)
    sound = path.read_bytes()
    middle = len(sound) // 4096 // 2 * 4096
    damaged = sound[:middle] + b"x" * (len(sound) - middle)
    path.write_bytes(damaged)  # the header is whole, and so it can be opened
    code, lines = worker(history, *names)
    assert code == 0
    assert len([line for line in lines if line["event"] == "model"]) == len(MODELS)
    with closing(Views(path)) as views:
        assert content(views) == naive(history.log)
    (aside,) = [p for p in path.parent.glob("views.db.damaged-*") if p.suffix != "-shm"]
    assert aside.stat().st_size == len(damaged)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(("--bot", "nobody"), "there is no log at"), (("--model", "x"), "there are cleanup_log")],
)
def test_a_wrong_call_ends_with_2(history: TestLog, arguments: tuple[str, ...], word: str) -> None:
    code, lines = worker(history, *arguments)
    assert code == 2
    assert word in lines[-1]["error"]
    assert not (history.path.parent.parent / "nobody").exists()


def test_a_poisoned_model_ends_with_1_and_the_other_is_there(
    history: TestLog, views: Views
) -> None:
    history.chat("a")
    history.append_raw("a", BROKEN)
    code, lines = worker(history)
    assert code == 1
    assert {line["model"]: bool(line["parked"]) for line in lines if line["event"] == "model"} == {
        model.name: TokensIncremented in model.events for model in MODELS
    }
    assert content(views)["thread_map"] == naive_map(history)


def naive_map(history: TestLog) -> object:
    """The thread map of a log whose last event cannot be decoded."""
    return naive(history.log, history.log.head().position - 1)["thread_map"]


def test_a_second_rebuild_ends_with_3_and_names_the_first(history: TestLog, views: Views) -> None:
    lock = views.path.with_name("views.rebuild.lock")
    with exclusive(lock, "a test"):
        code, lines = worker(history)
    assert code == 3
    assert "is being rebuilt already, by process" in lines[-1]["error"]


FOLLOWING = [("looked", 1), ("begun", 2), ("applied", 1), ("flushed", 1), ("flushed", 7)]
FOLLOWING += [("moved", len(MODELS)), ("committed", 1), ("committed", 2)]
REBUILDING = [("prepared", 1), ("flushed", 2), ("committed", 2), ("caught up", 1), ("switching", 1)]
REBUILDING += [("moved in", 1), ("moved in", len(MODELS)), ("switched", 1)]


@pytest.mark.parametrize(("work", "steps"), [("follow", FOLLOWING), ("rebuild", REBUILDING)])
def test_killed_at_one_step_after_the_other_nothing_is_counted_twice(
    work: str, steps: list[tuple[str, int]], history: TestLog, views: Views
) -> None:
    history.chat("ab", turns=4)
    rebuild(views, history.log, MODELS)
    for step, nth in steps:
        before = content(views)
        history.chat("bcd", turns=4)
        command = [sys.executable, "-m", "tests.integration.projections.dying", work]
        arguments = [str(history.path.parent), step, str(nth)]
        child = subprocess.run([*command, *arguments], check=False)
        assert child.returncode == -signal.SIGKILL
        now = content(views)
        position = views.standings()["thread_map"].cursor.position
        assert now == naive(history.log, position)
        assert work == "follow" or now == (naive(history.log) if step == "switched" else before)
    assert worker(history)[0] == 0
    assert content(views) == naive(history.log)


def test_a_worker_that_is_killed_at_any_moment_leaves_the_live_rows_and_can_run_again(
    history: TestLog, views: Views
) -> None:
    history.chat("ab")
    rebuild(views, history.log, MODELS)
    before = content(views)
    long_history(history, 60_000)
    after = naive(history.log)
    command = worker_command(history.path.parent, "rebuild", ())
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert json.loads(child.stdout.readline())["event"] == "begin"
            child.kill()
        assert content(views) in (before, after)
    assert worker(history)[0] == 0
    assert content(views) == after
    assert not beside(views.path).exists()


def test_the_server_leaves_a_long_log_to_the_worker_and_goes_on_where_that_ended(
    history: TestLog, views: Views
) -> None:
    long_history(history, 3_000)
    follower = Follower(history.log, views, MODELS, bulk_events=2_000)
    follower.start()
    try:
        assert follower.progress.wait_for(history.log.head().position, ENOUGH)
        assert follower._bulk._thread is not None
        follower._bulk._thread.join(ENOUGH)  # it switches a moment before it ends
        assert follower._bulk.exit_code == 0
        assert follower._bulk.last_line["event"] == "done"
        assert follower.progress.wait_for(history.chat("xy"), ENOUGH)
        assert content(views) == naive(history.log)
    finally:
        follower.stop()


def test_what_grew_long_while_the_server_was_down_is_caught_up_by_the_worker(
    history: TestLog, views: Views
) -> None:
    history.chat("ab")
    rebuild(views, history.log, MODELS)
    long_history(history, 3_000)
    follower = Follower(history.log, views, MODELS, bulk_events=2_000)
    follower.start()
    try:
        assert follower.progress.wait_for(history.log.head().position, ENOUGH)
        assert follower.progress.wait_for(history.chat("xy"), ENOUGH)
        assert content(views) == naive(history.log)
    finally:
        follower.stop()
    assert follower._asked_bulk == {model.name for model in MODELS}
