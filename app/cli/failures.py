"""What can go wrong in a command, and the exit code it means.

0   done
1   FoundProblem     the command ran and found something wrong
2   WrongUsage       the command line, or a setting, cannot be used
3   CannotReach      what the command needs (log, keys, server, module) is not there
130                  interrupted with Ctrl-C

CommandFailed
├── FoundProblem
├── WrongUsage
└── CannotReach
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from typing import Final

DONE: Final = 0
FOUND: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
INTERRUPTED: Final = 130


class CommandFailed(Exception):
    """Ends a command with a message that says what to do, and an exit code."""

    exit_code = FOUND


class FoundProblem(CommandFailed):
    """The command ran and found something wrong."""

    exit_code = FOUND


class WrongUsage(CommandFailed):
    """The command line, or a setting, cannot be used."""

    exit_code = USAGE


class CannotReach(CommandFailed):
    """What the command needs is not there, or does not answer."""

    exit_code = UNREACHABLE


def codes(*, found: str = "", unreachable: str = "there is no log to read") -> str:
    """Return the sentence about exit codes that stands below a command's help."""
    parts = ["0 done"]
    parts += [f"1 {found}"] if found else []
    parts += ["2 wrong usage", f"3 {unreachable}"]
    return f"Exit codes: {'; '.join(parts)}."


def translated(error: Exception) -> CommandFailed | None:
    """Return what an error of the layers below means on the command line; None: a bug."""
    if isinstance(error, CommandFailed):
        return error
    for kinds, failure in _meanings():
        if isinstance(error, kinds):
            return failure(str(error))
    return None


def _meanings() -> Iterator[tuple[tuple[type[Exception], ...], type[CommandFailed]]]:
    """Yield kinds of errors and what each means; the first that fits counts."""
    from app.asof import UnclearMoment
    from app.installation import InstallationError, UnknownPerson
    from app.settings import SettingsError
    from eventstore import errors

    yield (SettingsError, UnclearMoment, errors.CutInsideAppend, errors.NotYet), WrongUsage
    yield (UnknownPerson,), FoundProblem
    yield (
        (
            errors.AppendRejected,
            errors.CannotUnseal,
            errors.CopyFailed,
            errors.CorruptEvent,
            errors.CursorMismatch,
            errors.Forgotten,
            errors.KeyExpired,
            errors.KeyMissing,
            errors.UnknownEventType,
        ),
        FoundProblem,
    )
    if "app.projections" in sys.modules:  # or else none of its errors can have been raised
        from app.projections import NotBuilt, ProjectionError

        yield (NotBuilt,), CannotReach
        yield (ProjectionError,), FoundProblem
    yield (InstallationError, errors.EventStoreError, sqlite3.Error, OSError), CannotReach
