"""The README's first tour runs as it is written there, and says what it promises."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from app.calling import called
from tests.integration.cli.conftest import Hilo
from tests.integration.cli.house import House

README = Path(__file__).parents[3] / "README.md"
YOU = "15550100001"
STARTS = {"serve", "chat"}  # what needs a terminal, and has tests of its own


def commands() -> list[list[str]]:
    """Every `hilo` of the README's code blocks, without what starts and waits."""
    blocks = "".join(re.findall(r"```console\n(.*?)```", README.read_text("utf-8"), re.DOTALL))
    lines = re.findall(r"^\.venv/bin/hilo (.*)$", blocks, re.MULTILINE)
    words = [shlex.split(line, comments=True) for line in lines]
    return [line for line in words if line[0] not in STARTS]


def test_every_command_of_the_first_tour_runs(hilo: Hilo, house: House) -> None:
    house.arrive(YOU)
    house.write(YOU, "hola, bot")
    assert hilo("projections", "rebuild").code == 0  # the server does it by itself
    tour = commands()
    assert len(tour) >= 6
    for words in tour:
        ran = hilo(*words)
        assert ran.code == 0, (words, ran.err)
    assert "hola, bot" in hilo("log", "show", YOU, "--open").out


def test_a_program_that_no_shell_would_find_is_named_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    monkeypatch.setattr("sys.argv", [".venv/bin/hilo", "serve"])
    assert called() == ".venv/bin/hilo"
    monkeypatch.setattr("sys.argv", [str(tmp_path / ".venv/bin/hilo"), "serve"])
    assert called() == ".venv/bin/hilo"
    monkeypatch.setattr("sys.argv", ["/somewhere/app/cli/__main__.py", "serve"])
    assert called() == "hilo"
