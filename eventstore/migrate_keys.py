"""The keyring's part in moving house: every row as it is, still wrapped, in one transaction."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

from eventstore import sql
from eventstore.errors import CopyDiffers, CopyFailed, LogUnavailable
from eventstore.keystore import TABLES, KeyStore, Table

_SQL: Final = sql.load("keyring.sql")


class KeySource(Protocol):
    """A keyring to be copied."""

    def rows(self, table: Table) -> list[tuple[Any, ...]]:
        """Return all rows of a table, in the order of its primary key."""

    def close(self) -> None:
        """Let go of it."""


class SqliteKeySource:
    """A `keys.db` that is not changed, not even brought up to date."""

    def __init__(self, path: Path) -> None:
        """Take the file; `rows` raises `LogUnavailable` if it cannot be read."""
        self._path = path

    def rows(self, table: Table) -> list[tuple[Any, ...]]:
        """Return all rows of a table, in the order of its primary key."""
        try:
            uri = f"file:{quote(str(self._path.resolve()))}?mode=ro"
            connection = sqlite3.connect(uri, uri=True)
            try:
                return connection.execute(_SQL[f"dump_{table}"]).fetchall()
            finally:
                connection.close()
        except sqlite3.Error as error:
            msg = f"{self._path} cannot be read: {error}"
            raise LogUnavailable(msg) from error

    def close(self) -> None:
        """Nothing is kept open."""


def refuse_another_keyring(source: KeySource, target: KeyStore) -> None:
    """Raise `CopyFailed` if the target is the keyring of something else. Nothing is written."""
    with target.transaction():
        empty = not target.secrets() and not target.holds_people()
        if not empty and target.rows("secrets") != source.rows("secrets"):
            msg = "the target holds another keyring already: name a place without one"
            raise CopyFailed(msg)


def move_keys(source: KeySource, target: KeyStore) -> int:
    """Copy a keyring into an empty store, and compare every row; return how many they are.

    Whoever comes again after a kill finds either nothing or all of it. The key-encryption key is
    not part of it, and stays what it is. Raises `CopyFailed` if the source is empty or the target
    another keyring, `CopyDiffers` if what arrived is not what was sent.
    """
    secrets = source.rows("secrets")
    if not secrets:
        msg = "the source's keyring is empty: restore it from its backup first"
        raise CopyFailed(msg)
    with target.transaction():
        if not target.secrets() and not target.holds_people():
            for table in TABLES:
                target.load(table, source.rows(table))
        elif target.rows("secrets") != secrets:
            msg = "the target holds another keyring already: name a place without one"
            raise CopyFailed(msg)
    count = 0
    for table in TABLES:
        rows = source.rows(table)
        if target.rows(table) != rows:
            msg = f"the keyring's {table} are not what they were copied from: empty the target"
            raise CopyDiffers(msg)
        count += len(rows)
    return count
