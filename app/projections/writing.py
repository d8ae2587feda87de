"""Many rows in few statements.

Python's `sqlite3` gives up the interpreter's lock for each row of an `executemany`, and must win it
back from the event loop: beside a busy one that costs more than the row
(`docs/decisions/0003-few-statements-a-commit.md`). In bulk, too, a row of many costs two thirds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any, Final

_MOST: Final = 128
"""Rows of a statement. What is left over goes in halves, so that there are few statements to keep
prepared."""


def insert_rows(
    db: sqlite3.Connection, into: str, rows: Sequence[Sequence[Any]], then: str = ""
) -> None:
    """`into` VALUES (…), (…) … `then`: the rows, all of one length, in their order."""
    start, size = 0, _MOST
    while start < len(rows):
        while size > len(rows) - start:
            size //= 2
        some = rows[start : start + size]
        db.execute(_statement(into, len(some[0]), size, then), tuple(chain.from_iterable(some)))
        start += size


@cache
def _statement(into: str, columns: int, rows: int, then: str) -> str:
    one = f"({', '.join('?' * columns)})"
    return f"{into} VALUES {', '.join([one] * rows)} {then}"
