"""What the demo leaves behind, gathered when everything has stopped: log, files and views."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from app.demo.accounts import Ledger, OpenAIAccount, WhapiAccount, ledger_of
from app.demo.judge import Dump, Evidence, log_faults, readable
from app.demo.traffic import SENTENCES, SURNAMES, Plan
from app.settings import Settings
from app.stores import open_log
from eventstore.store import LogReader
from eventstore.types import Position, Recorded

_PAGE: Final = 5_000
_WORDS: Final = (*SURNAMES, *SENTENCES, "120363000000000001")
_FAULTS_TOLD: Final = 20


def gather(  # noqa: PLR0913 - the pieces of evidence, put together in one place
    plan: Plan,
    openai: OpenAIAccount,
    whapi: WhapiAccount,
    *,
    settings: Settings,
    files: tuple[Path, ...],
    views: tuple[Dump, Dump],
    exits: tuple[str, ...],
) -> Evidence:
    """Read the log and the raw bytes of all files below `files`, and put everything together.

    `views` are the read models that followed live, and those that were rebuilt.
    """
    log = open_log(settings)
    try:
        head = log.head().position
        faults = tuple(_first(log_faults(read_all(log), head=head)))
        ledger: Ledger = ledger_of(read_all(log))
    finally:
        log.close()
    return Evidence(
        plan=plan,
        openai=openai,
        whapi=whapi,
        ledger=ledger,
        log_faults=faults,
        readable=tuple(personal_data(plan, files)),
        live=views[0],
        rebuilt=views[1],
        exits=exits,
    )


def read_all(log: LogReader) -> Iterator[Recorded]:
    """Yield every event of a log."""
    after = Position(0)
    while page := log.read(after=after, limit=_PAGE):
        yield from page
        after = page[-1].position


def personal_data(plan: Plan, places: tuple[Path, ...]) -> Iterator[str]:
    """Yield which files show personal data of the plan's people."""
    phones = frozenset(script.person.phone for script in plan.scripts)
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else (place,):
            if path.is_file():
                found = readable(path.read_bytes(), phones=phones, words=_WORDS)
                yield from (f"{path.name} shows {what}" for what in found)


def merged(dumps: Mapping[str, Dump]) -> Dump:
    """Return the read models of several servers as one, each table under its server's name."""
    if len(dumps) == 1:
        return next(iter(dumps.values()))
    return {
        f"{table} of {server}": rows
        for server, dump in dumps.items()
        for table, rows in (dump or {"nothing": []}).items()
    }


def followed(views: Path) -> int:
    """Return the position that every read model has reached; 0 if there is none yet."""
    try:
        return min((position for _, position in _positions(views)), default=0)
    except sqlite3.OperationalError:  # it is just being made
        return 0


def dump_views(path: Path) -> Dump:
    """Return the rows of every read model in a views file: all tables but those about them."""
    with _reading(path) as connection:
        names = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if not name.startswith(("_", "sqlite_")) and name != "cursors"
        ]
        rows = {name: _rows(connection, name) for name in sorted(names)}
    return {"(positions)": _positions(path), **rows}


def _positions(path: Path) -> list[tuple[str, int]]:
    with _reading(path) as connection:
        return list(connection.execute("SELECT model, position FROM cursors ORDER BY model"))


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        yield connection
    finally:
        connection.close()


def _rows(connection: sqlite3.Connection, table: str) -> list[tuple[object, ...]]:
    cursor = connection.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - a name from sqlite_master
    order = sorted(range(len(cursor.description)), key=lambda n: cursor.description[n][0])
    return sorted((tuple(row[n] for n in order) for row in cursor), key=repr)


def _first(faults: Iterator[str]) -> Iterator[str]:
    for count, fault in enumerate(faults):
        if count == _FAULTS_TOLD:
            yield "… and more"
            return
        yield fault
