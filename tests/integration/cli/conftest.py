"""A small installation on the disk, and `hilo` beside it, in this process or another."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from app.cli import main
from tests.integration.cli.house import House

ROOT = Path(__file__).parents[3]


class Ran(NamedTuple):
    """What one run of `hilo` gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever was printed
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Hilo = Callable[..., Ran]


def environment(directory: Path) -> dict[str, str]:
    """The environment of a process that finds the installation, and the package, by itself."""
    given = {key: value for key, value in os.environ.items() if not key.startswith("HILO_")}
    return given | {"HILO_DATA": str(directory / "data"), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


@pytest.fixture
def hilo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hilo:
    """Run `hilo` in this process, in an empty directory; HILO_DATA is its `data`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the worker that a command starts

    def run(*arguments: object, **variables: str) -> Ran:
        out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline=""), io.StringIO()
        with monkeypatch.context() as scope, redirect_stdout(out), redirect_stderr(err):
            for name, value in ({"HILO_DATA": str(tmp_path / "data")} | variables).items():
                scope.setenv(name, value)
            code = main([str(argument) for argument in arguments])
        out.seek(0)
        return Ran(code, out.read(), err.getvalue())

    return run


@pytest.fixture
def hilo_process(tmp_path: Path) -> Hilo:
    """Run `hilo` as a process of its own, as `hilo` does it otherwise."""

    def run(*arguments: object, **variables: str) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *map(str, arguments)],
            cwd=tmp_path,
            env=environment(tmp_path) | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """An installation with three people, each at another point of a conversation."""
    with House(tmp_path / "data") as house:
        house.furnish()
        yield house
