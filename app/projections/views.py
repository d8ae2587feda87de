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
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import ClassVar, Final, Literal

import msgspec
from msgspec.structs import astuple
from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from app.derived import (
    Contents,
    FileId,
    file_id,
    is_damaged,
    is_emptied,
    opened,
    put_aside,
    remove_leftovers,
    wal_of,
)
from app.projections.model import ReadModel
from app.projections.skipping import Skip
from eventstore.sqlite import system_clock
from eventstore.types import Clock, Cursor, Epoch, Position

State = Literal["live", "building", "parked", "paused"]
"""`live`: follows the log. `building`: its rows stand still, a rebuild is due or under way beside
them. `parked`: stopped before an event that it cannot take; `error` says which. `paused`: an
operator stopped it; `error` says who and why."""

_BUSY_SECONDS: Final = 30.0
_IDLE_READERS: Final = 8

_CALM_SECONDS: Final = 60.0
"""Longer than the worker's checkpoint goes on after the commit that it is part of."""

_WAL_PAGES: Final = 4_000
"""Pages after which the WAL is copied into the file: a batch of a busy bot writes thousands, and
the next one most of them again."""

_CACHE_KB: Final = 16_000
"""The writer's own pages: those of some thousand users who write."""

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


@_migrations()
def skips(db: Database) -> None:
    """Make the table of events that operators told models to pass over."""
    columns = {"model": str, "position": int, "leaf": bytes, "by": str, "why": str, "at": int}
    db.table("skips").create(
        columns, pk=("model", "position", "leaf"), not_null=set(columns), strict=True
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

    _journal: ClassVar[Literal["WAL", "TRUNCATE"]] = "WAL"
    """How SQLite keeps a transaction whole: WAL, so that readers never wait."""

    def __init__(self, path: Path, *, clock: Clock = system_clock) -> None:
        """Open or create the file. Raises `sqlite3.Error` if it cannot be used."""
        self.path = path
        self._clock = clock
        self._attached = False
        self._closed = False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._open()

    @classmethod
    def owned(cls, path: Path) -> Views:
        """Open or create the file for its owner: a damaged one is put aside for a new one."""
        return opened(path, cls)

    def _open(self) -> None:
        self._readers: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        self._writer = _connect(self.path, self._journal)
        self._writer.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
        self._writer.execute(f"PRAGMA cache_size=-{_CACHE_KB}")
        self._contents = Contents(self.path, calm_seconds=_CALM_SECONDS)
        file = file_id(self.path)
        try:
            with self.transaction() as db:  # taken first: two processes may come at once
                _migrations.apply(Database(db))
        except BaseException:
            self._writer.close()
            raise
        self._file = file
        self._wal = wal_of(self.path)

    # -- the file itself, from the thread that writes --------------------------------------------

    @property
    def file(self) -> FileId | None:
        """Which file is open, whatever its name is by now."""
        return self._file

    @property
    def is_in_place(self) -> bool:
        """Whether the open file is still the one of that name."""
        same = self._file is not None and self._file == file_id(self.path)
        return same and not is_emptied(self.path)

    @property
    def harm(self) -> str | None:
        """What was done to the file in its place, beside SQLite; None if nothing was, or is known.

        What it holds now may be a mixture that no check would find.
        """
        if not self.is_in_place:
            return None
        if wal_of(self.path) != self._wal:
            return "its -wal was taken away"
        (others,) = self._writer.execute("PRAGMA data_version").fetchone()
        return "it was written over" if self._contents.are_foreign(others) else None

    def open_again(self) -> None:
        """Let go of a file that was deleted or replaced, and open or make what is there now.

        For the owner alone: what is there now is put aside if it is damaged.
        """
        self._let_go()  # first: two files of one name must not be open at once
        remove_leftovers(self.path, self._wal)  # another process may have kept them open
        opened(self.path, lambda _: self._open())

    def replace(self, why: BaseException | str) -> None:
        """Put the file aside for a new one. For the owner alone."""
        self._let_go()
        if self.is_in_place:
            put_aside(self.path, why)
        opened(self.path, lambda _: self._open())

    def replace_if_damaged(self, error: BaseException) -> bool:
        """Look through a file of which an error came; put it aside for a new one if it is bad.

        For the owner alone. Return whether it was bad, or is not there any more.
        """
        if not is_damaged(error):
            return False
        if not self.is_in_place:  # SQLite would delete the -wal of one that was emptied
            self.open_again()
        elif self._is_sound():
            return False
        else:
            self.replace(error)
        return True

    def _is_sound(self) -> bool:
        try:
            # On a connection that remembers no pages from before. Not a quick check: an index that
            # lacks a row is an error each time that the row is to go.
            with closing(_connect(self.path, self._journal)) as fresh:
                (found,) = fresh.execute("PRAGMA integrity_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            return not is_damaged(error)
        return bool(found == "ok")

    def _let_go(self) -> None:
        readers, self._readers = self._readers, SimpleQueue()
        _close_all(readers)
        self._writer.close()

    # -- reading, from any thread ----------------------------------------------------------------

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Give a connection that sees one moment of the file, all models at the same one."""
        idle = self._readers
        connection = self._reader(idle)
        try:
            connection.execute("BEGIN")
            yield connection
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._keep(connection, idle)

    def standings(self) -> dict[str, Standing]:
        """Return every model's standing by name, as it is now."""
        with self.read() as db:
            return standings(db)

    def skips(self) -> list[Skip]:
        """Return what operators told models to pass over, as far as this file knows."""
        query = "SELECT model, position, leaf, by, why, at FROM skips ORDER BY at, model, position"
        with self.read() as db:
            return [Skip(*row) for row in db.execute(query)]

    def _reader(self, idle: SimpleQueue[sqlite3.Connection]) -> sqlite3.Connection:
        try:
            return idle.get_nowait()
        except Empty:
            connection = _connect(self.path, self._journal)
            connection.execute("PRAGMA query_only=ON")
            return connection

    def _keep(self, connection: sqlite3.Connection, idle: SimpleQueue[sqlite3.Connection]) -> None:
        let_go = idle is not self._readers  # the file was opened again meanwhile
        if self._closed or let_go or idle.qsize() >= _IDLE_READERS:
            connection.close()
        else:
            idle.put(connection)

    # -- writing, from one thread ----------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock of this file; commit at the end, or undo everything."""
        self._contents.compare()
        try:
            if self._attached:
                # BEGIN IMMEDIATE would lock the attached file as well: write to this one instead.
                self._writer.execute("BEGIN")
                self._writer.execute("DELETE FROM main.cursors WHERE 0")
            else:
                self._writer.execute("BEGIN IMMEDIATE")
            yield self._writer
            self._writer.execute("COMMIT")
            self._contents.note()
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

    def learn_skips(self, recorded: Iterable[Skip]) -> None:
        """Note every skip that the ledger has recorded."""
        known = set(self.skips())
        news = [skip for skip in recorded if skip not in known]
        if not news:
            return
        with self.transaction() as db:
            db.executemany(
                "INSERT OR IGNORE INTO skips (model, position, leaf, by, why, at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                map(astuple, news),
            )

    def begin(self, models: Iterable[ReadModel], epoch: Epoch) -> None:
        """Make the models' tables anew, empty, with their cursors before the first event."""
        start = Cursor(epoch, Position(0), b"")
        with self.transaction() as db:
            known = standings(db)
            for model in models:
                before = known.get(model.name)
                forget(db, model.name, {*model.tables, *(before.tables if before else ())})
                model.migrations.apply(Database(db))
                self._made(db, model)
                fresh = Standing(model.name, model.version, start, "live", tables=model.tables)
                self.put(db, fresh)

    def _made(self, db: sqlite3.Connection, model: ReadModel) -> None:
        """Change a model's new, empty tables inside the open transaction. Nothing, as a rule."""

    def lacks_migrations(self, model: ReadModel) -> bool:
        """Tell whether this release has migrations of the model that were not applied here."""
        return bool(model.migrations.pending(Database(self._writer)))

    def migrate(self, model: ReadModel) -> None:
        """Apply migrations that this release added without another version (an index, …)."""
        if self.lacks_migrations(model):
            with self.transaction() as db:
                model.migrations.apply(Database(db))

    def close(self) -> None:
        """Close every connection. Idempotent."""
        self._closed = True
        _close_all(self._readers)
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
    """Drop a model's tables, SQL views and cursor, and what is known of its migrations."""
    found = dict(db.execute("SELECT name, type FROM main.sqlite_master").fetchall())
    for table in tables & found.keys():
        db.execute(f'DROP {found[table]} main."{table}"')
    db.execute("DELETE FROM main._sqlite_migrations WHERE migration_set = ?", (model,))
    db.execute("DELETE FROM main.cursors WHERE model = ?", (model,))


def _connect(path: Path, journal: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA temp_store=MEMORY")  # large statements take notes
    except BaseException:
        connection.close()
        raise
    return connection


def _close_all(connections: SimpleQueue[sqlite3.Connection]) -> None:
    while True:
        try:
            connections.get_nowait().close()
        except Empty:
            return
