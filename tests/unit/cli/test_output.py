"""How commands speak: clean lines for programs, harmless lines for people."""

from __future__ import annotations

import pytest

from app.cli import output
from app.times import iso


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_763_677_929_000_001, "2025-11-20T22:32:09.000001Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_instants_are_exact_to_the_microsecond(micros: int, text: str) -> None:
    assert iso(micros) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("buenos días 👋", "buenos días 👋"),
        ("a\nb\tc", "a b c"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b2J", "\\x9b2J"),
        ("abc\u202etxt", "abc\\u202etxt"),
    ],
)
def test_nothing_that_a_terminal_obeys_is_printed(text: str, shown: str) -> None:
    assert output.safe(text) == shown


def test_a_table_in_a_pipe_is_plain_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    output.write_table(("name", "count"), [("a" * 300, 1_234_567), ("[bold]b[/]", 2)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["name", "count"],
        ["a" * 300, "1234567"],
        ["[bold]b[/]", "2"],
    ]
    assert not any(line.endswith(" ") for line in lines)


def test_a_value_on_two_lines_stays_one_cell(capsys: pytest.CaptureFixture[str]) -> None:
    output.write_fields([("why", "first\nsecond"), ("none", None), ("flag", True)])
    assert capsys.readouterr().out.splitlines() == ["why   first second", "none  –", "flag  yes"]


def test_no_progress_is_shown_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with output.bar("counting", 10) as progress:
        progress.at(5)
    assert capsys.readouterr() == ("", "")
