"""The command reference, docs/commands.md, is written here: `python -m app.cli.reference`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Final

import typer

from app.cli.program import HELP, app

TARGET: Final = Path("docs/commands.md")
_INTRODUCTION: Final = f"""# Commands

<!-- Written by `python -m app.cli.reference`; a test holds it to the program. -->

{HELP}
With `--json` an error is one JSON object on stderr: `{{"error": "…", "exit_code": 3}}`. A progress
bar shows itself on stderr, if that is a terminal and the command takes longer than a second. A
reader that closes the pipe early (`hilo log tail --limit 1000 | head`) ends a command quietly.
Commands that read never create or change a file of the installation.
"""

Command = Any  # typer keeps its classes of commands to itself


def commands(command: Command | None = None, path: str = "hilo") -> Iterator[tuple[str, Command]]:
    """Yield every command that can be run, with its whole name, in the order of `--help`."""
    node = typer.main.get_command(app) if command is None else command
    children = getattr(node, "commands", None)
    if children is None:
        yield path, node
        return
    for name, child in children.items():
        yield from commands(child, f"{path} {name}")


def reference() -> str:
    """Return the whole document."""
    sections = [_section(path, command) for path, command in commands()]
    contents = [f"- [`{path}`](#{path.replace(' ', '-')})" for path, _ in commands()]
    return "\n".join([_INTRODUCTION, *contents, "", "\n\n".join(sections)]) + "\n"


def _section(path: str, command: Command) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    names = "".join(f" {_argument(p)}" for p in arguments)
    lines = [f"## {path}", "", inspect.cleandoc(command.help or ""), ""]
    lines += ["```console", f"hilo{path.removeprefix('hilo')}{names} [OPTIONS]", "```", ""]
    rows = [(f"`{_argument(p)}`", _about(p)) for p in arguments]
    rows += [(_spelling(p), _about(p)) for p in options]
    lines += ["| option | what it does |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in rows]
    return "\n".join([*lines, "", command.epilog or ""]).rstrip()


def _argument(parameter: Command) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required else f"[{name}]"


def _spelling(parameter: Command) -> str:
    value = "" if parameter.is_flag else f" {parameter.metavar or 'VALUE'}"
    return ", ".join(f"`{name}{value}`" for name in sorted(parameter.opts, key=len, reverse=True))


def _about(parameter: Command) -> str:
    text = (parameter.help or "").replace("|", "\\|")
    if parameter.required and parameter.param_type_name == "option":
        text += " Required."
    default = parameter.default
    if default not in (None, False, ()) and getattr(parameter, "show_default", True):
        text += f" Default: `{default.value if isinstance(default, Enum) else default}`."
    return text


def main(target: Path = TARGET) -> int:
    """Write the document."""
    target.write_text(reference(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
