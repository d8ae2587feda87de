"""What an export's rows are: events as `app.projections.presenting` shows them, or tables' rows.

For tables the state of an event is JSON text. A read model's rows are one of its tables' or SQL
views', with the columns of `docs/read-models.md`; the client view has the names of M003, opened or
masked, by either of its names.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from app.exports.formats import Column, Kind, Row
from app.exports.selection import Selection, pages
from app.projections import ReadModel, UnknownTable, clients
from app.projections.presenting import Presenter
from app.times import iso
from eventstore.errors import KeyringError
from eventstore.sealing import Sealer
from eventstore.store import LogReader
from eventstore.types import Position

MASK: Final = "•••"
_CLIENTS_IN_SQL: Final = "ClientView"
LOG_COLUMNS: Final[tuple[Column, ...]] = (
    ("position", "int"),
    ("epoch", "int"),
    ("stream", "text"),
    ("version", "int"),
    ("type", "text"),
    ("recorded_at", "text"),
    ("key", "text"),
    ("append_id", "text"),
    ("state", "text"),
)
_CLIENT_COLUMNS: Final[tuple[Column, ...]] = (
    ("userId", "text"),
    ("name", "text"),
    ("userName", "text"),
    ("labels", "text"),
    ("chatId", "text"),
    ("lastActivity", "text"),
    ("threadId", "text"),
    ("threadTokenCount", "int"),
)
# `INT` is what SQLite calls the column of a table that was made of a query.
_KINDS: Final[dict[str, Kind]] = {
    "INTEGER": "int",
    "INT": "int",
    "REAL": "float",
    "FLOAT": "float",
}


def of_log(
    log: LogReader, wanted: Selection, present: Presenter, *, after: Position, up_to: Position
) -> Iterator[Row]:
    """Yield the events with `after < position <= up_to`, oldest first."""
    for _, page in pages(log, wanted, after=after, up_to=up_to):
        for event in page:
            yield present.as_json(event)


def flat_event(event: Row) -> Row:
    """Return an event for a table: its state as JSON text."""
    return event | {"state": msgspec.json.encode(event["state"]).decode()}


def table_of(model: ReadModel, wanted: str | None) -> str:
    """Return the table of a read model that is meant, its first if none is named.

    Raises `UnknownTable`, which lists them.
    """
    if wanted is None:
        return model.tables[0]
    if wanted not in model.tables:
        raise UnknownTable(model.name, model.tables)
    return wanted


def table_rows(
    path: Path, scratch: Path, table: str, log: LogReader, sealer: Sealer | None
) -> tuple[Sequence[Column], Iterator[Row]]:
    """Return the columns and rows of a read model's table, of one moment of the views at `path`.

    They are copied to `scratch` first: whoever reads slowly must not keep the live file from
    being tidied up. Without a sealer personal columns are masked. Raises `sqlite3.Error`.
    """
    table = "client_view" if table == _CLIENTS_IN_SQL else table  # what is in it is sealed
    db = sqlite3.connect(scratch, isolation_level=None)
    db.execute("PRAGMA synchronous=OFF")
    db.execute("ATTACH ? AS live", (str(path),))
    db.execute(f'CREATE TABLE "{table}" AS SELECT * FROM live."{table}"')  # noqa: S608 - our own
    db.execute("DETACH live")
    if table == "client_view":
        return _CLIENT_COLUMNS, _clients(db, log, sealer)
    found = db.execute(f'PRAGMA table_info("{table}")').fetchall()
    columns = [(name, _kind(db, table, name, declared)) for _, name, declared, *_ in found]
    return columns, _rows(db, table, [name for name, _ in columns])


def _kind(db: sqlite3.Connection, table: str, column: str, declared: str) -> Kind:
    """Return what a column holds; an SQL view's says nothing of what is computed in it."""
    if declared:
        return _KINDS.get(declared.upper(), "text")
    query = f'SELECT DISTINCT typeof("{column}") FROM "{table}"'  # noqa: S608 - our own names
    held = {kind for (kind,) in db.execute(query)} - {"null"}
    if held == {"integer"}:
        return "int"
    return "float" if held and held <= {"integer", "real"} else "text"


def _rows(db: sqlite3.Connection, table: str, names: Sequence[str]) -> Iterator[Row]:
    try:
        for values in db.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - our own name
            yield {name: _plain(value) for name, value in zip(names, values, strict=True)}
    finally:
        db.close()


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value


def _clients(db: sqlite3.Connection, log: LogReader, sealer: Sealer | None) -> Iterator[Row]:
    try:
        for view in clients.every(db):
            yield _client(view, log, sealer)
    finally:
        db.close()


def _client(view: clients.ClientView, log: LogReader, sealer: Sealer | None) -> Row:
    personal: dict[str, Any] = dict.fromkeys(("name", "userName", "labels", "chatId"), MASK)
    if sealer is not None:
        try:
            opened = clients.open_client(view, log, sealer)
        except KeyringError:
            personal = dict.fromkeys(personal)
        else:
            personal = {
                "name": opened.name,
                "userName": opened.user_name,
                "labels": ", ".join(opened.labels),
                "chatId": opened.chat_id,
            }
    return {
        "userId": view.user,
        **personal,
        "lastActivity": None if view.last_activity is None else iso(view.last_activity),
        "threadId": view.thread_id,
        "threadTokenCount": view.thread_token_count,
    }
