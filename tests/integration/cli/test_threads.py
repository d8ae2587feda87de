"""`hilo threads` and `hilo projections`: what the read models say, and as of when."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.aggregates import events as e
from app.cli.threads import TOKEN_LIMIT
from app.projections import DEFAULT_LIMIT
from eventstore.types import NewEvent
from tests.integration.cli.conftest import Hilo, environment
from tests.integration.cli.house import ANA, BEN, EVA, House
from tests.integration.cli.test_log import contents


@pytest.fixture
def built(hilo: Hilo, house: House) -> House:
    """The installation with its read models built."""
    assert hilo("projections", "rebuild").code == 0
    return house


def test_threads_are_listed_with_the_position_they_reflect(hilo: Hilo, built: House) -> None:
    listed = hilo("threads", "list", "--json").json
    head = built.log.head().position
    assert (listed["position"], listed["head"], listed["lag"]) == (head, head, 0)
    assert [thread["user"] for thread in listed["threads"]] == [
        built.people[phone] for phone in (EVA, BEN, ANA)
    ]
    ran = hilo("threads", "list", "--sort", "tokens", "--limit", 1)
    assert built.people[ANA] in ran.out
    assert built.people[BEN] not in ran.out
    assert f"as of position {head}" in ran.err


def test_read_models_that_are_behind_say_so(hilo: Hilo, built: House) -> None:
    built.write(ANA, "one more")
    built.write(ANA, "and one more")
    ran = hilo("threads", "list")
    assert ran.code == 0
    assert "2 events behind" in ran.err
    assert hilo("threads", "list", "--json").json["lag"] == 2
    (status, *_) = hilo("projections", "list", "--json").json
    assert status["lag"] == 2
    assert status["lag_seconds"] > 0


@pytest.mark.parametrize("empty_file", [False, True])
def test_without_read_models_it_is_said_how_to_build_them(
    hilo: Hilo, house: House, tmp_path: Path, empty_file: bool
) -> None:
    if empty_file:
        (tmp_path / "data" / "default" / "views.db").touch()
    house.close()
    before = contents(tmp_path)
    for command in ("list", "check"):
        ran = hilo("threads", command)
        assert (ran.code, ran.out) == (3, "")
        assert "hilo projections rebuild" in ran.err
    listed = hilo("projections", "list", "--json").json
    assert {status["state"] for status in listed} == {"not built"}
    assert contents(tmp_path) == before


def test_the_check_counts_contacts_tokens_and_bands(hilo: Hilo, built: House) -> None:
    ran = hilo("threads", "check", "--json")
    status = ran.json
    assert ran.code == 0
    assert (status["contacts"], status["with_tokens"], status["near_limit"]) == (3, 1, 0)
    assert [band["band"] for band in status["bands"]] == [
        "normal",
        "caution",
        "warning",
        "critical",
    ]
    assert [band["threads"] for band in status["bands"]] == [1, 0, 0, 0]
    assert [thread["user"] for thread in status["top"]] == [built.people[ANA]]
    assert status["limit"] == DEFAULT_LIMIT == TOKEN_LIMIT
    assert hilo("threads", "check", "--top", 0, "--json").json["top"] == []


@pytest.mark.parametrize(
    ("limit", "band", "code"),
    [(2469, "normal", 0), (2468, "caution", 0), (1542, "warning", 0), (1234, "critical", 1)],
)
def test_the_check_fails_when_a_conversation_is_critical(
    hilo: Hilo, built: House, limit: int, band: str, code: int
) -> None:
    ran = hilo("threads", "check", "--limit", limit)
    assert ran.code == code
    (counted,) = [
        b
        for b in hilo("threads", "check", "--limit", limit, "--json").json["bands"]
        if b["threads"]
    ]
    assert counted["band"] == band


def test_a_read_model_that_has_stopped_makes_the_check_fail(hilo: Hilo, built: House) -> None:
    built.append_stored(ANA, NewEvent("ThreadStarted", b"no such event"))
    assert hilo("projections", "rebuild").code == 1
    listed = hilo("projections", "list")
    assert (listed.code, "parked" in listed.out) in {(0, False), (1, True)}
    shutil.rmtree(built.data / "default" / "views.db", ignore_errors=True)
    (built.data / "default" / "views.db").unlink()
    assert hilo("projections", "rebuild").code == 1
    listed = hilo("projections", "list")
    assert listed.code == 1
    assert "has stopped" in listed.err
    check = hilo("threads", "check", "--json")
    assert check.code == 1
    assert "hilo projections rebuild" in check.json["wrong"][0]


def test_looking_at_read_models_leaves_them_as_they_are(
    hilo_process: Hilo, built: House, tmp_path: Path
) -> None:
    built.close()
    before = contents(tmp_path)
    for arguments in (["threads", "list"], ["threads", "check"], ["projections", "list"]):
        assert hilo_process(*arguments).code == 0
    assert contents(tmp_path) == before


def test_one_read_model_can_be_rebuilt_by_name(hilo: Hilo, built: House) -> None:
    ran = hilo("projections", "rebuild", "token_totals", "--json")
    assert ran.code == 0
    head = built.log.head().position
    assert ran.json["models"] == [
        {"model": "token_totals", "position": head, "switched": True, "parked": None}
    ]
    assert ran.json["seconds"] > 0


def test_a_paused_read_model_says_who_paused_it_and_follows_again_when_resumed(
    hilo: Hilo, built: House
) -> None:
    paused = hilo("projections", "pause", "thread_map", "--why", "looks odd", "--json")
    assert (paused.code, paused.json["state"]) == (0, "paused")
    listed = hilo("projections", "list")
    assert listed.code == 0
    assert "thread_map is paused by" in listed.err
    assert "looks odd" in listed.err
    assert "hilo projections resume thread_map" in hilo("threads", "list").err
    assert hilo("projections", "resume", "thread_map", "--json").json["state"] == "live"
    again = hilo("projections", "resume", "thread_map")
    assert (again.code, "nothing has stopped it" in again.err) == (1, True)
    assert hilo("projections", "pause", "nothing").code == 2


def test_without_read_models_nothing_can_be_paused(hilo: Hilo, house: House) -> None:
    ran = hilo("projections", "pause", "thread_map")
    assert (ran.code, "has not been built yet" in ran.err) == (3, True)


def test_a_skipped_event_stays_skipped_and_the_control_log_says_who_did_it_and_why(
    hilo: Hilo, built: House
) -> None:
    built.append_stored(ANA, NewEvent("UsageUnknown@2", b"\x80"))
    bad = built.log.head().position
    (built.data / "default" / "views.db").unlink()
    assert hilo("projections", "rebuild").code == 1
    assert f"event at {bad}" in hilo("projections", "list").err
    where = ("--position", bad, "--why", "written by a test")
    for name in ("token_totals", "usage"):
        assert hilo("projections", "skip", name, *where).code == 0
    assert hilo("projections", "skip", "usage", *where).code == 1
    assert hilo("projections", "skip", "usage", "--position", bad, "--why", " ").code == 2
    (built.data / "default" / "views.db").unlink()
    assert hilo("projections", "rebuild").code == 0  # the control log knows
    told = hilo("control", "log")
    assert "projections skip" in told.out
    assert "written by a test" in told.out


def test_a_read_model_that_is_not_there_is_refused_with_those_that_are(
    hilo: Hilo, house: House
) -> None:
    ran = hilo("projections", "rebuild", "nothing")
    assert ran.code == 2
    assert "thread_map" in ran.err
    assert hilo("threads", "list", "--sort", "name").code == 2
    assert hilo("threads", "list", "--limit", 0).code == 2
    assert hilo("threads", "check", "--limit", 0).code == 2


def test_ctrl_c_ends_a_rebuild_and_its_process(tmp_path: Path, house: House) -> None:
    for _ in range(40):
        house.append(BEN, *[e.TokensIncremented(thread="t", run="r", total=1)] * 1000)
    with subprocess.Popen(
        [sys.executable, "-m", "app.cli", "projections", "rebuild"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        lock = tmp_path / "data" / "default" / "views.rebuild.lock"
        worker = ""
        while command.poll() is None and not worker:
            worker = lock.read_text("utf-8").strip() if lock.exists() else ""
        command.send_signal(signal.SIGINT)
        _, errors = command.communicate(timeout=30)
    if command.returncode != 0:  # it may have been quicker than we
        assert (command.returncode, errors) == (130, "")
    assert worker
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < deadline
        os.sched_yield()
