"""Rebuild read models beside the live ones, and switch when they have caught up.

The new rows grow in a file of their own, `views.building.db`, whose process may be killed at any
moment: the live tables are untouched, and the next rebuild goes on where it ended. The switch is
one transaction on `views.db`: a reader sees the old rows or the new ones, whole, and never rows of
an earlier position than before.

Indexes that only readers use are made at the switch, when their rows are all there: nobody reads
the growing file, and keeping an index costs as much as half of the row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Final

import msgspec
import structlog
from msgspec.structs import replace

from app.derived import is_damaged
from app.lock import exclusive
from app.projections.engine import BULK_WINDOW, Engine, Progress, Steps, no_progress, no_steps
from app.projections.errors import RebuildFailed, RebuildRunning
from app.projections.model import ReadModel
from app.projections.views import Standing, Views, forget, standings
from eventstore.errors import CursorMismatch, StoreLocked
from eventstore.store import LogReader
from eventstore.types import Position

_log = structlog.get_logger(__name__)
_ATTEMPTS: Final = 3
_PUT_OFF: Final = """
CREATE TABLE IF NOT EXISTS put_off (model TEXT NOT NULL, name TEXT PRIMARY KEY, sql TEXT NOT NULL)
"""


class _Growing(Views):
    """The file in which new rows grow: nobody else reads it."""

    _journal: ClassVar = "TRUNCATE"
    """New pages are written once, and not into a WAL first."""

    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises `sqlite3.Error` if it cannot be used."""
        super().__init__(path)
        try:
            with self.transaction() as db:
                db.execute(_PUT_OFF)
        except BaseException:
            self.close()
            raise

    def _made(self, db: sqlite3.Connection, model: ReadModel) -> None:
        """Put off the indexes until the switch, but for those that keep doubles out."""
        db.execute("DELETE FROM put_off WHERE model = ?", (model.name,))
        for table in model.tables:
            found = db.execute(
                "SELECT name, sql FROM main.sqlite_master"
                " WHERE type = 'index' AND tbl_name = ? AND sql LIKE 'CREATE INDEX %'",
                (table,),
            ).fetchall()
            for name, statement in found:
                db.execute("INSERT INTO put_off VALUES (?, ?, ?)", (model.name, name, statement))
                db.execute(f'DROP INDEX main."{name}"')


class Outcome(msgspec.Struct, frozen=True):
    """What became of one model."""

    model: str
    position: Position
    switched: bool
    parked: str | None = None
    """Why it could not go on, if it could not."""


def rebuild(  # noqa: PLR0913 - what is rebuilt from what, and three knobs
    views: Views,
    log: LogReader,
    models: Sequence[ReadModel],
    *,
    window: int = BULK_WINDOW,
    progress: Progress = no_progress,
    at_step: Steps = no_steps,
) -> list[Outcome]:
    """Build `models` from the start of the log and put them in the place of the live ones.

    A model that meets an event it cannot take is switched, parked before that event, only where
    nothing better is live. Raises `RebuildRunning` if another process is at it, `RebuildFailed`
    if the log was replaced again and again, and `LogUnavailable` or `sqlite3.Error` if the disk is
    at fault.
    """
    with _alone(views.path), _building(views.path) as building:
        engine = Engine(
            building,
            log,
            models,
            window=window,
            skips=views.skips,
            on_chunk=progress,
            at_step=at_step,
        )
        for _ in range(_ATTEMPTS):
            _prepare(building, log, models)
            at_step("prepared")
            while engine.advance():
                pass
            at_step("caught up")
            if all(s.state != "building" for s in building.standings().values()):
                return _switch(views, building, engine, models, at_step)
    msg = (
        f"the log changed under the rebuild of {views.path} {_ATTEMPTS} times: is it restored now?"
    )
    raise RebuildFailed(msg)


def beside(path: Path) -> Path:
    """Return where the new rows of a `views.db` grow."""
    return path.with_name(f"{path.stem}.building{path.suffix}")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    lock = path.with_name(f"{path.stem}.rebuild.lock")
    try:
        with exclusive(lock, f"the rebuild of {path}"):
            yield
    except StoreLocked as error:
        holder = "unknown"
        with suppress(OSError):  # it may just have failed, and taken its lock back
            holder = lock.read_text("utf-8").strip() or holder
        msg = f"{path} is being rebuilt already, by process {holder}: wait for it, or stop it"
        raise RebuildRunning(msg) from error


@contextmanager
def _building(path: Path) -> Iterator[Views]:
    """Open what an earlier rebuild left, or a new file; throw it away if all went well."""
    fresh = beside(path)
    try:
        building = _Growing(fresh)
    except sqlite3.OperationalError:  # busy, full, not writable: not the file's fault
        raise
    except sqlite3.DatabaseError as error:
        _log.warning("READ_MODEL_REBUILD", file=fresh.name, error=str(error))
        _discard(fresh)
        building = _Growing(fresh)
    try:
        yield building
    except sqlite3.DatabaseError as error:
        building.close()
        if is_damaged(error):  # the live file is, or this one: the next rebuild begins anew
            _discard(fresh)
        raise
    finally:
        building.close()
    _discard(fresh)


def _discard(path: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _prepare(building: Views, log: LogReader, models: Sequence[ReadModel]) -> None:
    """Begin each model, or leave it where an earlier rebuild of the same log was killed."""
    epoch = log.head().epoch
    known = building.standings()
    for name in known.keys() - {model.name for model in models}:
        with building.transaction() as db:
            forget(db, name, set(known[name].tables))
    building.begin(
        [model for model in models if not _goes_on(building, known.get(model.name), model, log)],
        epoch,
    )


def _goes_on(building: Views, standing: Standing | None, model: ReadModel, log: LogReader) -> bool:
    if standing is None or standing.version != model.version or standing.state != "live":
        return False
    if building.lacks_migrations(model):  # which may be about indexes that were dropped here
        return False
    try:
        log.verify_cursor(standing.cursor)
    except CursorMismatch:
        return False
    return True


def _switch(
    views: Views, building: Views, engine: Engine, models: Sequence[ReadModel], at_step: Steps
) -> list[Outcome]:
    with views.attached(building.path, "fresh"), views.transaction() as db:
        at_step("switching")  # nobody can move the live ones from here on
        live = standings(db)
        _not_behind(live, building, engine)
        built = building.standings()
        outcomes = []
        for model in models:
            before, after = live.get(model.name), built[model.name]
            if after.state == "live" or _is_better_than(before, model):
                _move(views, db, model, before, after)
            elif before is not None and before.version != model.version:
                views.put(db, replace(before, state="parked", error=after.error))
            at_step("moved in")
            outcomes.append(
                Outcome(
                    model.name,
                    after.cursor.position,
                    after.state == "live" or _is_better_than(before, model),
                    after.error,
                )
            )
    at_step("switched")
    return outcomes


def _not_behind(live: dict[str, Standing], building: Views, engine: Engine) -> None:
    """Take the few events that the live models took since we caught up."""

    def behind() -> bool:
        return any(
            s.state == "live"
            and s.model in live
            and live[s.model].state == "live"
            and live[s.model].cursor.epoch == s.cursor.epoch
            and live[s.model].cursor.position > s.cursor.position
            for s in building.standings().values()
        )

    while behind() and engine.advance():
        pass


def _is_better_than(before: Standing | None, model: ReadModel) -> bool:
    """Whether rows that end before a bad event should replace what is there."""
    return before is None or (before.version == model.version and before.state != "live")


def _move(
    views: Views,
    db: sqlite3.Connection,
    model: ReadModel,
    before: Standing | None,
    after: Standing,
) -> None:
    forget(db, model.name, {*model.tables, *(before.tables if before else ())})
    for table in model.tables:
        objects = db.execute(
            "SELECT type, sql FROM fresh.sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL"
            " ORDER BY type = 'table' DESC, type, name",
            (table,),
        ).fetchall()
        db.execute(objects[0][1])
        if objects[0][0] == "table":  # an SQL view has no rows of its own
            db.execute(f'INSERT INTO main."{table}" SELECT * FROM fresh."{table}"')  # noqa: S608
        for _, statement in objects[1:]:
            db.execute(statement)
    query = "SELECT sql FROM fresh.put_off WHERE model = ? ORDER BY name"
    for (statement,) in db.execute(query, (model.name,)).fetchall():
        db.execute(statement)
    db.execute(
        "INSERT INTO main._sqlite_migrations (migration_set, name, applied_at)"
        " SELECT migration_set, name, applied_at FROM fresh._sqlite_migrations"
        " WHERE migration_set = ? ORDER BY id",
        (model.name,),
    )
    if before is not None and before.state == "paused":  # only `resume` ends a pause
        after = replace(after, state="paused", error=before.error)
    views.put(db, after)
