"""`hilo demo`: real processes, a real kill -9, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.integration.demo.running import DEMO, demo, ended_by

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_a_small_demo_keeps_every_promise_and_leaves_its_files_if_asked(tmp_path: Path) -> None:
    done = demo("--json", "--keep", str(tmp_path / "kept"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    numbers = json.loads(line)
    assert numbers["broken"] == []
    assert (numbers["users"], numbers["messages"], numbers["restarts"]) == (6, 18, 1)
    assert (numbers["lost"], numbers["answered_twice"]) == (0, 0)
    assert numbers["rebuild_equal"] is True
    assert numbers["duplicates_sent"] >= 2
    assert 0 < numbers["tokens_recorded"] <= numbers["tokens_reported"]
    assert numbers["events"] > numbers["messages"]
    assert (tmp_path / "kept/data/default/log.db").is_file()
    assert "kill -9" in done.stderr


def test_the_story_is_told_to_a_person_and_nothing_is_left_behind(tmp_path: Path) -> None:
    done = demo("--seed", "4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("killed with -9", "duplicates", "RunStarted", "Every promise was kept."):
        assert words in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_child_outlives_the_demo(tmp_path: Path, number: signal.Signals) -> None:
    assert ended_by(number, cwd=tmp_path) == []


def test_a_demo_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif 'serve' in sys.argv: sys.exit('no server on this machine')\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join((str(tmp_path), str(Path.cwd())))
    done = subprocess.run(
        DEMO, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 3
    assert "no server on this machine" in done.stderr
    assert done.stdout == ""
