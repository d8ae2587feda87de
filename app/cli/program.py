"""The whole command line, and its front door `main`: exit codes, errors, Ctrl-C, closed pipes.

Commands return their exit code. They import what they need when they run, so that `hilo --help`
is instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Final

import typer

from app.cli import (
    about,
    bots,
    cache,
    control,
    diff,
    importing,
    jobs,
    keys,
    log,
    migrate,
    nodes,
    projections,
    running,
    store,
    threads,
    turns,
    users,
)
from app.cli.failures import DONE, INTERRUPTED, CommandFailed, translated

HELP: Final = """Hilo: a WhatsApp bot whose only truth is an append-only log of events.

Results go to stdout, remarks and errors to stderr; every command has --json. Exit codes: 0 done,
1 found something wrong, 2 wrong usage, 3 cannot reach what it needs, 130 interrupted.
"""

_COMMAND_WORDS: Final = 2
"""`hilo GROUP COMMAND`: before these are said, `--json` is no option of a command."""
_NO_MORE_OPTIONS: Final = "--"

app = typer.Typer(
    name="hilo",
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _hilo(
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="The same as --json after a command.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version.", is_eager=True, callback=about.show_version
        ),
    ] = False,
) -> None:
    pass


_hilo.__doc__ = HELP

for _command in (running.serve, running.chat, running.demo):
    app.command(epilog=running.CODES[_command.__name__])(_command)
app.command(epilog=diff.CODES)(diff.diff)
app.command("import", epilog=importing.CODES)(importing.import_files)
app.command("migrate-store", epilog=migrate.CODES)(migrate.migrate_store)
for _group in (log.log, threads.threads, users.users, turns.turns, projections.projections):
    app.add_typer(_group)
app.add_typer(cache.cache)
for _group in (bots.bots, control.control, keys.keys, store.store, jobs.jobs, about.config):
    app.add_typer(_group)
app.command(epilog=nodes.CODES)(nodes.nodes)
app.command(epilog=running.CODES["bench"])(running.bench)
app.command(epilog=about.VERSION_CODES)(about.version)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (`sys.argv` by default) and return its exit code."""
    given = _json_last(list(sys.argv[1:] if arguments is None else arguments))
    with suppress(AttributeError, ValueError):  # a stream that a test or an embedder replaced
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = _run(given)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has seen enough
        _silence_stdout()
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _json_last(given: list[str]) -> list[str]:
    """Return a command line whose `--json`, if it stands before the command, stands after it."""
    before = given[:_COMMAND_WORDS]
    if "--json" not in before or _NO_MORE_OPTIONS in before or len(given) == 1:
        return given
    words = [word for word in before if word != "--json"] + given[_COMMAND_WORDS:]
    end = words.index(_NO_MORE_OPTIONS) if _NO_MORE_OPTIONS in words else len(words)
    return [*words[:end], "--json", *words[end:]]


def _run(arguments: list[str]) -> int:
    try:
        answer = typer.main.get_command(app).main(
            arguments, prog_name="hilo", standalone_mode=False
        )
    except typer.TyperException as error:
        return _say(_usage_message(error), error.exit_code, as_json="--json" in arguments)
    except typer.Abort:
        return INTERRUPTED
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # typer's own answer to a closed pipe
            raise ended.__context__ from None
        return ended.code if isinstance(ended.code, int) else DONE
    except BrokenPipeError:
        raise
    except Exception as error:
        failure = translated(error)
        if failure is None:
            raise
        return _fail(failure, as_json="--json" in arguments)
    return answer if isinstance(answer, int) else DONE


def _usage_message(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "hilo"
    text = error.format_message().strip().replace(": Value error, ", ": ")  # pydantic's own words
    text = text.rstrip(".")
    if text.startswith("Missing ") and text.endswith("'"):  # its name alone, and nothing to choose
        text += _what_it_is(getattr(error, "param", None))
    stop = "" if text.endswith("?") else "."  # "Did you mean …?"
    return f"{text}{stop} See: {where} --help" if text else ""


def _what_it_is(parameter: object) -> str:
    """Return the help of an option or argument that was not given: what to give, or an example."""
    told = (getattr(parameter, "help", None) or "").rstrip(".")
    return f": {told[0].lower()}{told[1:]}" if told else ""


def _fail(failure: CommandFailed, *, as_json: bool) -> int:
    return _say(str(failure), failure.exit_code, as_json=as_json)


def _say(message: str, code: int, *, as_json: bool) -> int:
    from app.cli import output

    if message:
        sys.stdout.flush()
        error = {"error": message, "exit_code": code}
        output.remark(output.json_line(error) if as_json else f"hilo: {message}")
    return code


def _silence_stdout() -> None:
    """Let the interpreter's last flush go nowhere instead of failing once more."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


__all__ = ["app", "main"]
