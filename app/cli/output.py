"""How commands speak: results on stdout, clean enough to be piped; remarks and errors on stderr.

On a terminal tables are coloured and fit the window; in a pipe they are plain text, whole. Text
that people wrote is stripped of control characters, which could take a terminal over.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

import msgspec

from app.times import iso

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_WIDE: Final = 10_000
_PATIENCE_SECONDS: Final = 1.0
_PRINTABLE_SPACE: Final = " "


def when(micros: object) -> str:
    """Return an instant as people read it: UTC, to the millisecond. `2026-11-21 00:47:29.968Z`."""
    return readable(iso(micros)) if isinstance(micros, int) else "–"


def readable(instant: str) -> str:
    """Return an instant that `iso` wrote as people read it."""
    return f"{instant[:23].replace('T', ' ')}Z"


def safe(text: str) -> str:
    """Return text without characters that a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else _PRINTABLE_SPACE if c.isspace() else repr(c)[1:-1] for c in text
    )


def write(line: str) -> None:
    """Print one line of results."""
    sys.stdout.write(line + "\n")


def json_line(value: object) -> str:
    """Return a value as one line of JSON; bytes become base64."""
    return msgspec.json.encode(value).decode()


def write_json(value: object) -> None:
    """Print a result as JSON: on a terminal indented, in a pipe one line."""
    text = msgspec.json.encode(value)
    write((msgspec.json.format(text) if sys.stdout.isatty() else text).decode())


def remark(text: str) -> None:
    """Say something that is not a result, on stderr."""
    print(safe(text), file=sys.stderr, flush=True)  # noqa: T201 - this is what a terminal is for


def write_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their column names; numbers are aligned to the right."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int) for row in rows)
        table.add_column(
            column, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric
        )
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    _render(table)


def write_rows(rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows, of which there is one at least, under the names that all of them have."""
    columns = tuple(rows[0])
    write_table(
        [column.replace("_", " ") for column in columns],
        [[row[column] for column in columns] for row in rows],
    )


def write_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Print names and values, one pair a line."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(name, Text(_cell(value)))
    _render(table)


def _cell(value: object) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}" if sys.stdout.isatty() else str(value)
        case _:
            return safe(str(value))


def _render(table: object) -> None:
    if sys.stdout.isatty():
        console(sys.stdout).print(table)
        return
    plain = io.StringIO()
    console(plain, width=_WIDE).print(table)
    for line in plain.getvalue().splitlines():
        write(line.rstrip())


def console(file: TextIO, *, width: int | None = None) -> Console:
    """Return rich's console on a file; nothing is highlighted or interpreted."""
    from rich.console import Console

    return Console(file=file, width=width, highlight=False, markup=False, emoji=False)


class Bar:
    """A progress bar on stderr that shows itself after a second, and only on a terminal."""

    def __init__(self, what: str, total: int | None, *, shown: bool) -> None:
        """Count up to `total`; None if nobody knows."""
        self._what = what
        self._total = total
        self._shown = shown and sys.stderr.isatty()
        self._since = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def at(self, done: int, total: int | None = None) -> None:
        """Say how much is done."""
        self._total = self._total if total is None else total
        if not self._shown:
            return
        if self._progress is None and time.monotonic() - self._since > _PATIENCE_SECONDS:
            self._show()
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=self._total)

    def name(self, what: str) -> None:
        """Say what is being done now."""
        self._what = what
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=what)

    def _show(self) -> None:
        from rich.progress import Progress

        self._progress = Progress(console=console(sys.stderr), transient=True)
        self._task = self._progress.add_task(self._what, total=self._total)
        self._progress.start()

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()


@contextmanager
def bar(what: str, total: int | None = None, *, shown: bool = True) -> Iterator[Bar]:
    """Show progress while the context lasts."""
    progress = Bar(what, total, shown=shown)
    try:
        yield progress
    finally:
        progress.close()
