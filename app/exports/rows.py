"""What an export's rows are: events as `app.projections.presenting` shows them, or tables' rows.

For tables the state of an event is JSON text. A read model's rows are its first table's, with the
columns of `docs/read-models.md`; the client view has the names of M003, opened or masked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from app.exports.formats import Column, Kind, Row
from app.exports.selection import Selection, pages
from app.projections import ReadModel, clients
from app.projections.presenting import Presenter
from app.times import iso
from eventstore.errors import KeyringError
from eventstore.sealing import Sealer
from eventstore.store import LogReader
from eventstore.types import Position

MASK: Final = "•••"
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


def model_rows(
    path: Path, scratch: Path, model: ReadModel, log: LogReader, sealer: Sealer | None
) -> tuple[Sequence[Column], Iterator[Row]]:
    """Return a read model's columns and rows, all of one moment of the views at `path`.

    They are copied to `scratch` first: whoever reads slowly must not keep the live file from
    being tidied up. Without a sealer personal columns are masked. Raises `sqlite3.Error`.
    """
    table = model.tables[0]
    db = sqlite3.connect(scratch, isolation_level=None)
    db.execute("PRAGMA synchronous=OFF")
    db.execute("ATTACH ? AS live", (str(path),))
    db.execute(f'CREATE TABLE "{table}" AS SELECT * FROM live."{table}"')  # noqa: S608 - our own
    db.execute("DETACH live")
    if table == "client_view":
        return _CLIENT_COLUMNS, _clients(db, log, sealer)
    found = db.execute(f'PRAGMA table_info("{table}")').fetchall()
    columns = [(name, _KINDS.get(kind.upper(), "text")) for _, name, kind, *_ in found]
    return columns, _rows(db, table, [name for name, _ in columns])


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
