"""One bot's `views.db`: the tables of its read models, and how far each has followed the log.

WAL, so that readers never wait. `synchronous=NORMAL`: after a power cut the last transactions may
be missing, but rows and cursor are missing together and the log is asked again from there. The
file is derived, so waiting for the disk at every batch would buy nothing.

One thread writes; any thread reads. Another process (the worker) may write too: each batch checks,
inside its transaction, that the cursor still is where the batch began.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, Literal

import msgspec
from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from app.projections.model import ReadModel
from eventstore.sqlite import system_clock
from eventstore.types import Clock, Cursor, Epoch, Position

State = Literal["live", "building", "parked"]
"""`live`: follows the log. `building`: its rows stand still, a rebuild is due or under way beside
them. `parked`: stopped before an event that it cannot take; `error` says which."""

_BUSY_SECONDS: Final = 30.0
_IDLE_READERS: Final = 8

_migrations = Migrations("views")


@_migrations()
def cursors(db: Database) -> None:
    """Make the table of cursors."""
    db.table("cursors").create(
        {
            "model": str,
            "version": int,
            "epoch": int,
            "position": int,
            "leaf": bytes,
            "state": str,
            "error": str,
            "updated_at": int,
            "tables": str,
        },
        pk="model",
        not_null={"model", "version", "epoch", "position", "leaf", "state", "updated_at", "tables"},
        strict=True,
    )


class Standing(msgspec.Struct, frozen=True):
    """How far a read model is, and what became of it."""

    model: str
    version: int
    cursor: Cursor
    state: State
    error: str | None = None
    updated_at: int = 0
    """µs, by the clock of the process that wrote it."""
    tables: tuple[str, ...] = ()
    """What the version that built it calls its tables, so that a later one can drop them."""


class Views:
    """The read models' file."""

    def __init__(self, path: Path, *, clock: Clock = system_clock) -> None:
        """Open or create the file. Raises `sqlite3.Error` if it cannot be used."""
        self.path = path
        self._clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = _connect(path)
        self._readers: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        self._attached = False
        self._closed = False
        with self.transaction() as db:  # taken first: two processes may come at once
            _migrations.apply(Database(db))

    # -- reading, from any thread ----------------------------------------------------------------

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Give a connection that sees one moment of the file, all models at the same one."""
        connection = self._reader()
        try:
            connection.execute("BEGIN")
            yield connection
        finally:
            connection.execute("ROLLBACK")
            self._keep(connection)

    def standings(self) -> dict[str, Standing]:
        """Return every model's standing by name, as it is now."""
        with self.read() as db:
            return standings(db)

    def _reader(self) -> sqlite3.Connection:
        try:
            return self._readers.get_nowait()
        except Empty:
            connection = _connect(self.path)
            connection.execute("PRAGMA query_only=ON")
            return connection

    def _keep(self, connection: sqlite3.Connection) -> None:
        if self._closed or self._readers.qsize() >= _IDLE_READERS:
            connection.close()
        else:
            self._readers.put(connection)

    # -- writing, from one thread ----------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock of this file; commit at the end, or undo everything."""
        try:
            if self._attached:
                # BEGIN IMMEDIATE would lock the attached file as well: write to this one instead.
                self._writer.execute("BEGIN")
                self._writer.execute("DELETE FROM main.cursors WHERE 0")
            else:
                self._writer.execute("BEGIN IMMEDIATE")
            yield self._writer
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise

    @contextmanager
    def attached(self, path: Path, name: str) -> Iterator[None]:
        """Let the writer's connection read another file under `name`."""
        self._writer.execute(f"ATTACH ? AS {name}", (str(path),))
        self._attached = True
        try:
            yield
        finally:
            self._attached = False
            self._writer.execute(f"DETACH {name}")

    def put(self, db: sqlite3.Connection, standing: Standing) -> None:
        """Write a standing inside the open transaction; its time is now."""
        cursor = standing.cursor
        db.execute(
            "INSERT OR REPLACE INTO cursors (model, version, epoch, position, leaf, state, error,"
            " updated_at, tables) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                standing.model,
                standing.version,
                cursor.epoch,
                cursor.position,
                cursor.leaf,
                standing.state,
                standing.error,
                self._clock(),
                json.dumps(standing.tables),
            ),
        )

    def begin(self, model: ReadModel, epoch: Epoch) -> None:
        """Make the model's tables anew, empty, with its cursor before the first event."""
        with self.transaction() as db:
            before = standings(db).get(model.name)
            forget(db, model.name, {*model.tables, *(before.tables if before else ())})
            model.migrations.apply(Database(db))
            cursor = Cursor(epoch, Position(0), b"")
            self.put(db, Standing(model.name, model.version, cursor, "live", tables=model.tables))

    def migrate(self, model: ReadModel) -> None:
        """Apply migrations that this release added without another version (an index, …)."""
        if model.migrations.pending(Database(self._writer)):
            with self.transaction() as db:
                model.migrations.apply(Database(db))

    def close(self) -> None:
        """Close every connection. Idempotent."""
        self._closed = True
        while True:
            try:
                self._readers.get_nowait().close()
            except Empty:
                break
        self._writer.close()


def standings(db: sqlite3.Connection) -> dict[str, Standing]:
    """Return every model's standing by name, as this connection sees it."""
    rows = db.execute(
        "SELECT model, version, epoch, position, leaf, state, error, updated_at, tables"
        " FROM cursors ORDER BY model"
    )
    return {
        model: Standing(
            model=model,
            version=version,
            cursor=Cursor(epoch, position, leaf),
            state=state,
            error=error,
            updated_at=updated_at,
            tables=tuple(json.loads(tables)),
        )
        for model, version, epoch, position, leaf, state, error, updated_at, tables in rows
    }


def forget(db: sqlite3.Connection, model: str, tables: set[str]) -> None:
    """Drop a model's tables and cursor, and what is known of its migrations."""
    for table in tables:
        db.execute(f'DROP TABLE IF EXISTS main."{table}"')
    db.execute("DELETE FROM main._sqlite_migrations WHERE migration_set = ?", (model,))
    db.execute("DELETE FROM main.cursors WHERE model = ?", (model,))


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection
