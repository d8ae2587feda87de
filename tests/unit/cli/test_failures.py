"""What went wrong below, as an exit code: the same kind of trouble always gives the same code."""

from __future__ import annotations

import sqlite3

import pytest

from app.chatting import NobodyThere
from app.cli.failures import CannotReach, FoundProblem, WrongUsage, codes, translated
from app.installation import KeysUnavailable, NothingHere, UnknownPerson
from app.projections import NotBuilt, RebuildRunning
from app.settings import SettingsError
from eventstore import errors
from eventstore.types import Position


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WrongUsage("x"), 2),
        (SettingsError("x"), 2),
        (UnknownPerson("x"), 1),
        (errors.KeyMissing("someone", 1), 1),
        (errors.CannotUnseal("x"), 1),
        (errors.CursorMismatch(Position(7), "restored"), 1),
        (errors.CorruptEvent("TurnParked", "x"), 1),
        (RebuildRunning("x"), 1),
        (NothingHere("x"), 3),
        (KeysUnavailable("x"), 3),
        (NotBuilt("thread_map"), 3),
        (errors.LogUnavailable("x"), 3),
        (errors.StoreLocked("x"), 3),
        (sqlite3.OperationalError("disk I/O error"), 3),
        (PermissionError(13, "Permission denied", "data"), 3),
        (NobodyThere("x"), 3),
    ],
)
def test_trouble_has_an_exit_code_and_keeps_its_words(error: Exception, code: int) -> None:
    failure = translated(error)
    assert failure is not None
    assert failure.exit_code == code
    assert str(error) in str(failure)


def test_a_bug_is_not_dressed_up() -> None:
    assert translated(ZeroDivisionError()) is None


def test_exit_codes_are_documented_in_order() -> None:
    assert codes(found="a thing is wrong").startswith("Exit codes: 0 done; 1 a thing is wrong; 2 ")
    assert {FoundProblem.exit_code, WrongUsage.exit_code, CannotReach.exit_code} == {1, 2, 3}
