"""The bulk process: `python -m app.worker WORK --data DIR --bot BOT …`.

WORK is `rebuild`, `catch-up`, `past`, `export` or `thread-files`.

It does what would keep the server's one Python lock busy: niced, in a process of its own, started
by `hilo serve` or by hand beside it. It can be killed at any moment and started again. `past`
builds the models as they were at `--position` into the new file `--out`. `export` writes the log,
or the one `--model` (as it was at `--position`, if that is given), to standard output as `--format`
says, and nothing else; what goes wrong is the last line of standard error. `thread-files` writes
`threads.json` in `--tmp`, and with `--backup` its backup (`app.thread_files`).

Standard output is JSON lines: `{"event": "progress", "position", "head", "events_per_second"}`, at
the end one `{"event": "model", "model", "position", "switched", "parked"}` a model and
`{"event": "done", "position", "seconds"}`, or `{"event": "error", "error"}`. `thread-files` says
one line, `{"event": "done", …}` with the fields of `thread_files.Written`.

Exit codes: 0 done; 1 not done, or a model is parked; 2 called wrongly, or there is no such bot;
3 another rebuild of the same views is under way.
"""

from __future__ import annotations

import argparse
import gc
import os
import sqlite3
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from app import exporting, logs, stores, thread_files
from app.bots import the_bot
from app.derived import file_id, is_damaged
from app.projections import (
    MODELS,
    ProjectionError,
    ReadModel,
    RebuildRunning,
    SkipLedger,
    Views,
    named,
    past,
    rebuild,
)
from app.projections.engine import Engine
from app.settings import Settings, SettingsError, load
from app.skips import ControlLedger
from eventstore.errors import EventStoreError
from eventstore.store import LogStore
from eventstore.types import Position

DONE, FAILED, USAGE, RUNNING = 0, 1, 2, 3

_NICENESS: Final = 10
_REPORT_SECONDS: Final = 0.2
_CATCH_UP_WINDOW: Final = 20_000  # the server's own batches wait for one of these


class _WrongCall(Exception):
    """The arguments name something that is not there."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the work that the arguments name and return the exit code."""
    options = _parser().parse_args(arguments)
    logs.configure(None, console=sys.stderr)  # standard output is for the JSON lines alone
    os.nice(_NICENESS)
    gc.disable()  # millions of tuples and no cycles: looking for some takes a fifth of the time
    try:
        given = {"tmp": options.tmp} if options.tmp else {}
        installation = load(data=Path(options.data), bot=options.bot, **given)
        settings = the_bot(installation)
        skips = ControlLedger(installation, settings.bot)
        return _work(options, settings, skips)
    except (_WrongCall, SettingsError, exporting.CannotExport) as error:
        return _failed(USAGE, error)
    except RebuildRunning as error:
        return _failed(RUNNING, error)
    except (ProjectionError, EventStoreError, sqlite3.Error, OSError) as error:
        return _failed(FAILED, error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app.worker", description="Hilo's bulk work.")
    parser.add_argument("work", choices=("rebuild", "catch-up", "past", "export", "thread-files"))
    parser.add_argument("--data", required=True, help="directory of all bots' data")
    parser.add_argument("--bot", required=True, help="name of the bot")
    parser.add_argument(
        "--model", action="append", default=[], help="a read model (all if none is named)"
    )
    parser.add_argument("--position", type=int, default=0, help="for past: the moment")
    parser.add_argument("--out", type=Path, help="for past: the new file")
    exporting.add_arguments(parser)
    thread_files.add_arguments(parser)
    return parser


def _work(options: argparse.Namespace, settings: Settings, skips: SkipLedger) -> int:
    if not stores.has_log(settings):
        msg = f"there is no log at {stores.log_place(settings)}: check --data and --bot"
        raise _WrongCall(msg)
    try:
        chosen = [named(name, MODELS) for name in dict.fromkeys(options.model)]
    except ProjectionError as error:
        raise _WrongCall(error) from error
    models: Sequence[ReadModel] = chosen or MODELS
    log = stores.open_log(settings)
    try:
        if options.work == "export":
            return exporting.export(options, settings, log, models, skips.recorded())
        if options.work == "thread-files":
            written = thread_files.write(settings, log, backup=options.backup)
            _say(event="done", **msgspec.structs.asdict(written))
            return DONE
        if options.work == "past":
            return _past(options, log, models, skips)
        path = settings.bot_directory / "views.db"
        before = file_id(path)
        views = Views.owned(path) if options.work == "rebuild" else Views(path)
        try:
            if before not in {None, views.file}:
                models = MODELS  # it was put aside: none of them is there any more
            if options.work == "rebuild":
                return _rebuild(views, log, models, skips)
            views.learn_skips(skips.recorded())
            return _catch_up(views, log, models)
        finally:
            views.close()
    finally:
        log.close()


def _rebuild(views: Views, log: LogStore, models: Sequence[ReadModel], skips: SkipLedger) -> int:
    report = _Report(log)
    try:
        views.learn_skips(skips.recorded())
        outcomes = rebuild(views, log, models, progress=report.progress)
    except sqlite3.DatabaseError as error:
        if not is_damaged(error):
            raise
        if views.replace_if_damaged(error):
            models = MODELS  # none of them is there any more
        views.learn_skips(skips.recorded())
        outcomes = rebuild(views, log, models, progress=report.progress)
    for outcome in outcomes:
        _say(event="model", **msgspec.structs.asdict(outcome))
    report.done(min(outcome.position for outcome in outcomes))
    return FAILED if any(outcome.parked for outcome in outcomes) else DONE


def _catch_up(views: Views, log: LogStore, models: Sequence[ReadModel]) -> int:
    """Bring live tables to the end of the log, in place; the server's follower goes on there."""
    report = _Report(log)
    engine = Engine(views, log, models, window=_CATCH_UP_WINDOW, on_chunk=report.progress)
    engine.verify()
    while engine.advance():
        pass
    known = views.standings()
    ends = [known[model.name] for model in models if model.name in known]
    report.done(min((end.cursor.position for end in ends), default=Position(0)))
    return DONE if [end.state for end in ends] == ["live"] * len(models) else FAILED


def _past(
    options: argparse.Namespace, log: LogStore, models: Sequence[ReadModel], skips: SkipLedger
) -> int:
    """Build the models as they were, in a file that appears when it is complete."""
    if options.out is None:
        msg = "past needs --out"
        raise _WrongCall(msg)
    report = _Report(log)
    growing = options.out.with_suffix(".growing")
    growing.unlink(missing_ok=True)
    position = Position(options.position)
    views = past.build_at(
        growing, log, models, position, skips=skips.recorded(), progress=report.progress
    )
    parked = [s.model for s in views.standings().values() if s.state == "parked"]
    views.close()
    growing.replace(options.out)
    report.done(position)
    return FAILED if parked else DONE


class _Report:
    """Says how far the work is, a few times a second."""

    def __init__(self, log: LogStore) -> None:
        self._head = log.head().position
        self._began = self._said = time.monotonic()
        _say(event="begin", head=self._head)

    def progress(self, position: Position) -> None:
        now = time.monotonic()
        if now - self._said < _REPORT_SECONDS:
            return
        self._said = now
        speed = int(position / (now - self._began))
        _say(event="progress", position=position, head=self._head, events_per_second=speed)

    def done(self, position: Position) -> None:
        seconds = round(time.monotonic() - self._began, 3)
        _say(event="done", position=position, seconds=seconds)


def _failed(code: int, error: Exception) -> int:
    if "export" not in sys.argv[1:2]:  # its standard output is the export alone
        _say(event="error", error=str(error))
    sys.stderr.write(f"{error}\n")
    return code


def _say(**line: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
