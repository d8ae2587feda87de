"""What the read models hold, and nothing of how they came to hold it: for comparing two builds."""

from __future__ import annotations

import hashlib
import sqlite3
from typing import Any

import msgspec

from app.projections.views import Views, standings

Content = dict[str, dict[str, list[list[Any]]]]
"""Model → table → rows, the first one being the names of the columns."""


def content(views: Views) -> Content:
    """Return every row of every model that has tables, in an order that depends on nothing else.

    SQL views are left out: they hold nothing of their own.
    """
    with views.read() as db:
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        tables = {name for (name,) in db.execute(query)}
        return {
            name: {table: _table(db, table) for table in sorted(tables.intersection(s.tables))}
            for name, s in standings(db).items()
        }


def content_hash(views: Views) -> str:
    """Return the SHA-256 of `content`, in hex."""
    return hashlib.sha256(msgspec.json.encode(content(views), order="sorted")).hexdigest()


def _table(db: sqlite3.Connection, table: str) -> list[list[Any]]:
    cursor = db.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - the model's own name
    columns = [column[0] for column in cursor.description]
    return [columns, *sorted(map(list, cursor), key=repr)]
