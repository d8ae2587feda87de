"""Where the keyring keeps its rows: the port, and `keys.db`, the file behind it.

`eventstore.postgres_keystore` is the store that several machines share.

A store sees hashes, pseudonyms and wrapped keys only; it could not name or open anything.
"""

from __future__ import annotations

import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final, Literal, Protocol, get_args

from eventstore import sql
from eventstore.durable import sync_directory
from eventstore.errors import KeyringError, LogUnavailable
from eventstore.places import DatabaseFiles
from eventstore.types import Micros

_SCHEMA_VERSION: Final = 2
_BUSY_SECONDS: Final = 10.0
_OWNER_ONLY: Final = 0o600


@contextmanager
def _usable() -> Iterator[None]:
    """Say of whatever SQLite cannot do now (locked, full, unreadable) that the log cannot go on.

    A text that cannot be sealed cannot be recorded: for whoever waits, keys and log are one.
    """
    try:
        yield
    except sqlite3.Error as error:
        msg = f"keys.db cannot be used now: {error}"
        raise LogUnavailable(msg) from error


Table = Literal["secrets", "identities", "keys"]
TABLES: Final[tuple[Table, ...]] = get_args(Table)


class KeyStore(Protocol):
    """Rows of identities, wrapped keys and wrapped secrets. Used by one thread at a time.

    Everything raises `LogUnavailable` while the store can be neither read nor written: nothing
    may be acknowledged then that would need a key.
    """

    def transaction(self) -> AbstractContextManager[None]:
        """Keep every other writer out; what was written is durable on leaving, or undone."""

    def secrets(self) -> dict[str, bytes]:
        """Return the wrapped secrets by name."""

    def put_secret(self, name: str, wrapped: bytes) -> None:
        """Add a secret."""

    def holds_people(self) -> bool:
        """Tell whether there is any identity or key."""

    def pseudonym(self, handle_hmac: bytes) -> str | None:
        """Return whom a handle leads to."""

    def boxes(self, pseudonym: str) -> list[tuple[bytes, bytes]]:
        """Return a person's handles as (hmac, box)."""

    def put_identity(self, handle_hmac: bytes, pseudonym: str, box: bytes) -> None:
        """Add an identity, or replace whom it leads to."""

    def key(self, owner: str, generation: int) -> bytes | None:
        """Return a wrapped key; empty bytes if it has expired; None if there never was one."""

    def put_key(self, owner: str, generation: int, wrapped: bytes, created_at: Micros) -> None:
        """Add a wrapped key."""

    def generations(self, owner: str) -> list[int]:
        """Return the generations of which an owner has a key, oldest first; none that expired."""

    def expire(self, owner: str, generation: int, at: Micros) -> None:
        """Delete one key of an owner, and remember that it was."""

    def erase(self, owner: str) -> None:
        """Delete an owner's keys and identities, and what is remembered of those that expired."""

    def destructions(self) -> int:
        """Return a number that changes whenever something is erased or expires, by whomever."""

    def wipe(self) -> None:
        """Overwrite what was erased or has expired, wherever the store still keeps a copy."""

    def wipe_due(self) -> bool:
        """Tell whether something was destroyed since the last `wipe` that reached its end."""

    def rows(self, table: Table) -> list[tuple[Any, ...]]:
        """Return all rows of a table, in the order of its primary key, to be kept elsewhere."""

    def load(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Add rows of another store's table."""

    def close(self) -> None:
        """Let go of the store."""


class SqliteKeyStore:
    """`keys.db`: WAL, every commit synced, deleted content overwritten with zeros.

    Several processes may open one file: writers wait for each other up to 10 s.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file (mode 0600).

        Raises `KeyringError` if a newer release made it, `LogUnavailable` if it cannot be used.
        """
        self._sql = sql.load("keyring.sql")
        self._path = path
        self._files: DatabaseFiles | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        with _usable():
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            with _usable():
                self._prepare()
            self._files = DatabaseFiles.of(path)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        if stat.S_IMODE(self._path.stat().st_mode) != _OWNER_ONLY:  # -wal and -shm inherit it
            self._path.chmod(_OWNER_ONLY)
        self._enter_wal()
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA secure_delete = ON")
        self._connection.execute("PRAGMA temp_store = MEMORY")  # VACUUM copies no key to a disk
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > _SCHEMA_VERSION:
            msg = f"{self._path} was made by a newer release (schema {version}): upgrade this node"
            raise KeyringError(msg)
        if version < _SCHEMA_VERSION:
            with self.transaction():
                for statement in self._sql["schema"].split(";\n"):
                    self._connection.execute(statement)
            sync_directory(self._path.parent)

    def _enter_wal(self) -> None:
        """Switch to WAL: the one statement for which SQLite's busy time-out does not wait."""
        give_up = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.01)
            else:
                return

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Take the write lock before the first read, so that what was read still holds."""
        self._ask("BEGIN IMMEDIATE")
        try:
            yield
            self._ask("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._ask("ROLLBACK")
            raise
        if self._files is not None and self._files != DatabaseFiles.of(self._path):
            msg = (
                f"{self._path}, with its -wal and -shm, is not the file that it was: put that "
                "back, or start the server anew. Until then nobody gets a new key"
            )
            raise LogUnavailable(msg)

    def _ask(self, statement: str, values: tuple[bytes | str | int, ...] = ()) -> list[Any]:
        """Run one statement; return its rows."""
        with _usable():
            return self._connection.execute(statement, values).fetchall()

    def secrets(self) -> dict[str, bytes]:
        """Return the wrapped secrets by name."""
        return dict(self._ask(self._sql["select_secrets"]))

    def put_secret(self, name: str, wrapped: bytes) -> None:
        """Add a secret."""
        self._ask(self._sql["insert_secret"], (name, wrapped))

    def holds_people(self) -> bool:
        """Tell whether there is any identity or key."""
        ((found,),) = self._ask(self._sql["select_holds_people"])
        return bool(found)

    def pseudonym(self, handle_hmac: bytes) -> str | None:
        """Return whom a handle leads to."""
        rows = self._ask(self._sql["select_pseudonym"], (handle_hmac,))
        return str(rows[0][0]) if rows else None

    def boxes(self, pseudonym: str) -> list[tuple[bytes, bytes]]:
        """Return a person's handles as (hmac, box)."""
        return self._ask(self._sql["select_boxes"], (pseudonym,))

    def put_identity(self, handle_hmac: bytes, pseudonym: str, box: bytes) -> None:
        """Add an identity, or replace whom it leads to."""
        self._ask(self._sql["upsert_identity"], (handle_hmac, pseudonym, box))

    def key(self, owner: str, generation: int) -> bytes | None:
        """Return a wrapped key; empty bytes if it has expired."""
        rows = self._ask(self._sql["select_key"], (owner, generation))
        return bytes(rows[0][0]) if rows else None

    def put_key(self, owner: str, generation: int, wrapped: bytes, created_at: Micros) -> None:
        """Add a wrapped key."""
        self._ask(self._sql["insert_key"], (owner, generation, wrapped, created_at))

    def generations(self, owner: str) -> list[int]:
        """Return the generations of which an owner has a key, oldest first."""
        return [
            generation for (generation,) in self._ask(self._sql["select_generations"], (owner,))
        ]

    def expire(self, owner: str, generation: int, at: Micros) -> None:
        """Delete one key of an owner, and remember that it was."""
        self._ask(self._sql["delete_key"], (owner, generation))
        self.put_key(owner, generation, b"", at)
        self._ask(self._sql["count_destruction"])

    def erase(self, owner: str) -> None:
        """Delete an owner's keys and identities."""
        self._ask(self._sql["delete_keys"], (owner,))
        self._ask(self._sql["delete_identities"], (owner,))
        self._ask(self._sql["count_destruction"])

    def destructions(self) -> int:
        """Return a number that changes whenever something is erased or expires."""
        return self._destructions()[0]

    def wipe_due(self) -> bool:
        """Tell whether something was destroyed since the last `wipe` that reached its end."""
        counted, wiped = self._destructions()
        return wiped < counted

    def _destructions(self) -> tuple[int, int]:
        ((counted, wiped),) = self._ask(self._sql["select_destructions"])
        return counted, wiped

    def wipe(self) -> None:
        """Rebuild the file and empty the WAL. Raises `KeyringError` if a reader is in the way.

        `secure_delete` zeroes deleted cells, but not the copies that a page keeps after its cells
        were moved to a sibling; VACUUM writes every page anew.
        """
        destroyed = self.destructions()
        self._ask("VACUUM")
        ((busy, _, _),) = self._ask("PRAGMA wal_checkpoint(TRUNCATE)")
        if busy:
            msg = f"{self._path} is being read: what was erased is still in its WAL; try again"
            raise KeyringError(msg)
        self._ask(self._sql["mark_wiped"], (destroyed,))

    def rows(self, table: Table) -> list[tuple[Any, ...]]:
        """Return all rows of a table, in the order of its primary key."""
        return self._ask(self._sql[f"dump_{table}"])

    def load(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Add rows of another store's table."""
        with _usable():
            self._connection.executemany(self._sql[f"load_{table}"], rows)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()
