"""The pages for auditors and analysts: their commands and their Python run, their SQL answers."""

from __future__ import annotations

import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Hilo, environment
from tests.integration.cli.house import House

DOCS = Path(__file__).parents[3] / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The lines of a page's code blocks."""
    text = (DOCS / page).read_text("utf-8")
    found = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return [line for block in found for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("page", ["auditors.md", "analysts.md"])
def test_every_command_of_a_page_runs(hilo: Hilo, house: House, page: str) -> None:
    assert hilo("projections", "rebuild").code == 0
    commands = blocks(page, "console")
    assert len(commands) >= 4
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "hilo"
        ran = hilo(*words)
        assert ran.code == 0, (command, ran.err)


def test_every_query_of_a_page_answers(hilo: Hilo, house: House, tmp_path: Path) -> None:
    assert hilo("projections", "rebuild").code == 0
    views = sqlite3.connect(f"file:{tmp_path}/data/default/views.db?mode=ro", uri=True)
    try:
        answers = [views.execute(query).fetchall() for query in blocks("analysts.md", "sql")]
    finally:
        views.close()
    assert answers[0] == [(1, 1_234)]
    assert len(answers) == 3


def test_the_python_of_a_page_runs_as_it_stands(hilo: Hilo, house: House, tmp_path: Path) -> None:
    """Copied out of the page, in the directory above `data`, it tells of now and of then."""
    assert hilo("projections", "rebuild").code == 0
    kept = sorted((tmp_path / "data").rglob("*.db"))
    code = "\n".join(blocks("analysts.md", "python"))
    variables = {name: value for name, value in environment(tmp_path).items() if "HILO" not in name}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    now, then = done.stdout.splitlines()
    assert ("conv_5678" in now, "tokens=1234," in now) == (True, True)
    assert (then.startswith("Threads(position=5, "), "tokens=1234," in then) == (True, False)
    assert sorted((tmp_path / "data").rglob("*.db")) == kept
