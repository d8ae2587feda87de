"""The page on growing: its SQL and its commands make two nodes of one, as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from app.bots import bots_of
from app.settings import load
from tests.integration.cli.conftest import ROOT, Hilo, environment
from tests.integration.cli.house import House
from tests.postgres import PostgresServer
from tests.postgres_home import PATIENCE, free_port

PAGE = (ROOT / "docs" / "growing.md").read_text("utf-8")
LOOKS = 60
NOWHERE = "http://127.0.0.1:9"
HILO = """#!/bin/sh
[ "$1" = serve ] && echo $$ >>"$PIDS" && exec >>"$PIDS.said" 2>&1
exec {python} -m app.cli "$@"
"""


def blocks(language: str) -> list[str]:
    """The code blocks of the page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


class Machine:
    """A shell on a machine where `hilo` is on the path, and its environment from line to line."""

    def __init__(self, directory: Path, places: dict[str, str]) -> None:
        self._directory = directory
        self._places = places
        self._pids = directory / "pids"
        bin_ = directory / "bin"
        bin_.mkdir()
        (bin_ / "hilo").write_text(HILO.format(python=shlex.quote(sys.executable)))
        (bin_ / "hilo").chmod(0o755)
        self._environment = environment(directory) | {
            "PATH": f"{bin_}:{os.environ['PATH']}",
            "PIDS": str(self._pids),
            "OPENAI_API_KEY": "of-nobody",
            "OPENAI_BASE_URL": NOWHERE,
            "WHAPI_TOKEN": "of-nobody",
            "WHAPI_BASE_URL": NOWHERE,
        }
        del self._environment["HILO_DATA"]  # the page is read in the directory of `data`

    def run(self, block: str) -> str:
        """Run the lines as they are, but for places and ports; return what they say."""
        for written, here in self._places.items():
            block = block.replace(written, here)
        kept = self._directory / "environment"
        done = subprocess.run(
            ["/bin/sh", "-euc", f"{block}\nenv -0 >{shlex.quote(str(kept))}"],
            cwd=self._directory,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (block, done.stdout, done.stderr)
        pairs = kept.read_text().rstrip("\0").split("\0")
        self._environment = dict(pair.split("=", 1) for pair in pairs)
        return done.stdout

    @property
    def said(self) -> str:
        """What the nodes said."""
        said = self._pids.with_name("pids.said")
        return said.read_text() if said.exists() else "nothing"

    def close(self) -> None:
        """End the nodes."""
        pids = self._pids.read_text().split() if self._pids.exists() else []
        nodes = [psutil.Process(int(pid)) for pid in pids if psutil.pid_exists(int(pid))]
        for node in nodes:
            node.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(nodes, PATIENCE)
        for node in alive:
            node.kill()


@pytest.fixture
def machine(tmp_path: Path, own_postgres: PostgresServer) -> Iterator[Machine]:
    ports = {port: str(free_port()) for port in ("3011", "3012")}
    machine = Machine(tmp_path, {"db.example:5432": f"127.0.0.1:{own_postgres.port}"} | ports)
    yield machine
    machine.close()


def test_a_bot_with_a_past_becomes_two_nodes_by_the_page(
    tmp_path: Path, machine: Machine, own_postgres: PostgresServer, hilo: Hilo
) -> None:
    with House(tmp_path / "data") as house:
        house.furnish()
    assert hilo("projections", "rebuild").code == 0
    before = hilo("log", "stats", "--json").json
    for statement in "".join(blocks("sql")).split(";"):
        if statement.strip():
            own_postgres.execute(statement)
    *preparing, serving, looking = blocks("console")
    for block in preparing:
        machine.run(block)
    assert json.loads(machine.run("hilo log stats --json"))["position"] == before["position"]
    machine.run(serving)
    for _ in range(LOOKS):  # each is a process, and takes its time
        status = json.loads(machine.run("hilo nodes --json || true"))
        if status["alive"] == 2:
            break
    assert status["alive"] == 2, machine.said
    assert {node["node"] for node in status["nodes"]} == {"a", "b"}
    machine.run(looking)


def test_the_bots_of_the_page_are_where_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (table,) = blocks("toml")
    (tmp_path / "bots.toml").write_text(table)
    for name in re.findall(r'_env = "(\w+)"', table):
        monkeypatch.setenv(name, f"postgresql://hilo@sales.example/{name.lower()}")
    monkeypatch.setenv("HILO_DATABASE_URL", "postgresql://hilo@db.example/hilo")
    monkeypatch.setenv("HILO_KEYS_DATABASE_URL", "postgresql://hilo_keys@db.example/hilo_keys")
    addresses = {
        bot.bot: bot.database_url.get_secret_value() for bot in bots_of(load(data=tmp_path))
    }
    assert tomllib.loads(table)["bots"].keys() == addresses.keys()
    assert addresses["sales"] == "postgresql://hilo@sales.example/sales_database_url"
    assert addresses["help"] == "postgresql://hilo@db.example/hilo"
