"""The command reference is current, and every command keeps the common promises (H5)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.aggregates.access import ROLES
from app.api.callers import RIGHTS
from app.cli.reference import commands, main, reference

DOCUMENT = Path(__file__).parents[3] / "docs" / "commands.md"
COMMANDS = dict(commands())
EXPECTED = """
    serve chat demo diff import migrate-store bench version nodes
    jobs.list jobs.run cache.stats
    log.tail log.show log.stats log.export
    threads.list threads.check users.list users.show
    turns.list turns.retry turns.drop
    projections.export projections.list projections.rebuild
    projections.pause projections.resume projections.skip
    keys.create keys.list keys.revoke bots.list control.log store.prepare config.show
"""


def test_the_commands_are_all_there() -> None:
    assert set(COMMANDS) == {f"hilo {name.replace('.', ' ')}" for name in EXPECTED.split()}


def test_the_reference_is_current() -> None:
    assert DOCUMENT.read_text("utf-8") == reference(), "run: python -m app.cli.reference"


def test_the_reference_can_be_written(tmp_path: Path) -> None:
    assert main(tmp_path / "commands.md") == 0
    assert (tmp_path / "commands.md").read_text("utf-8") == reference()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_json_and_documented_exit_codes(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    options = {option for parameter in command.params for option in parameter.opts}
    assert "--json" in options
    assert all(parameter.help for parameter in command.params)
    assert re.match(r"Exit codes: 0 done;.* 2 wrong usage; 3 ", command.epilog)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_reads_a_bots_files_can_be_pointed_at_them(name: str) -> None:
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    elsewhere = {"hilo demo", "hilo bench", "hilo version", "hilo keys list", "hilo keys revoke"}
    assert ({"--data", "--bot"} <= options) == (name not in elsewhere)


def test_the_help_says_of_each_role_what_it_opens() -> None:
    (told,) = (p.help for p in COMMANDS["hilo keys create"].params if p.name == "role")
    said = dict(part.split(": ", 1) for part in told.split("; "))
    assert set(said) == set(ROLES)
    nothing = {role for role, text in said.items() if text.startswith("nothing at all")}
    assert nothing == {role for role in ROLES if not RIGHTS[role]}
    assert not re.search(r"\byet\b", told)
