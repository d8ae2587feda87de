"""The engine: moves read models along the log, each batch and its cursor in one transaction.

Models at the same place share one pass over the log and one transaction, so that their tables show
the same moment. The hindmost go first, alone, until they have caught up with the next ones.

What goes wrong with one model is that model's affair: an event that cannot be decoded, or that
`apply` cannot take, parks it just before that event's append, and the others go on. What goes wrong
with the disk or the log is raised. An event that an operator has told a model to skip is not shown
to it: for as long as such an event lies ahead of it, the model goes alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Final, NamedTuple

import structlog
from msgspec.structs import replace

from app.projections.model import ReadModel, Seen, Session
from app.projections.names import BULK_NAMES, LIVE_NAMES, StreamNames
from app.projections.scan import Poison, Reading
from app.projections.skipping import Skip, still_there
from app.projections.views import Standing, Views, standings
from eventstore.errors import CursorMismatch
from eventstore.integrity import leaf_hash
from eventstore.store import LogReader
from eventstore.types import Cursor, Head, Micros, Position

_log = structlog.get_logger(__name__)

_Mark = tuple[sqlite3.Connection, int, int]
"""A connection, the version of its file as others left it, and how many rows it has changed."""

Steps = Callable[[str], None]
"""Told the name of each step when it has been reached: where fault tests kill the process."""

LIVE_WINDOW: Final = 20_000
"""Positions in a batch, at most, of a process that stays: it remembers fewer names than one that is
there for a rebuild."""

BULK_WINDOW: Final = 1_000_000
"""Positions in a transaction of a rebuild: the more a row takes in one go, the fewer writes."""

_CHUNK: Final = 1_000
"""Positions read at a time within a transaction: few enough that rows, events and what models make
of them stay in the processor's cache, which halves the time of a rebuild (10,000 do not)."""

_NUMBER: Final = itemgetter(1)
"""The number of a scanned row's stream."""

# The model's own doing; whatever else SQLite reports (full, busy, I/O, …) is the machine's.
_MODELS_OWN: Final = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_RANGE})


Progress = Callable[[Position], None]
"""Told how far the log was read: what is reported, not yet what is committed."""


def no_progress(_: Position) -> None:
    """Tell nobody."""


def no_steps(_: str) -> None:
    """Go on."""


class Engine:
    """Moves models along one log. Belongs to the thread that writes to `views`."""

    reached_at: Micros = Micros(0)
    """When the last event of the last batch was recorded, by the log's clock."""
    size = 0
    """Positions of the last batch."""

    def __init__(  # noqa: PLR0913 - what moves along what, and some knobs
        self,
        views: Views,
        log: LogReader,
        models: Sequence[ReadModel],
        *,
        window: int = LIVE_WINDOW,
        up_to: Position | None = None,
        skips: Callable[[], Sequence[Skip]] | None = None,
        on_chunk: Progress = no_progress,
        at_step: Steps = no_steps,
    ) -> None:
        """Move `models`, in batches of about `window` positions, and not past `up_to`.

        `skips` tells what operators want skipped; `views` knows it if it is not given.
        """
        self._views = views
        self._log = log
        self._models = {model.name: model for model in models}
        self._window = window
        self._up_to = up_to
        self._skips = skips or views.skips
        self._known_skips: tuple[Skip, ...] = ()
        self._skipped: dict[str, frozenset[Position]] = {}
        self._connections = log.connections()
        self._narrowed: dict[str, int] = {}
        self._readings: dict[tuple[str, ...], Reading] = {}
        self._kept: _Kept | None = None
        self.names = StreamNames(log, LIVE_NAMES if window <= LIVE_WINDOW else BULK_NAMES)
        self._last_at = Micros(0)
        self._on_chunk = on_chunk
        self._at_step = at_step

    def verify(self) -> None:
        """Compare each live cursor with the log; a model whose log has changed is to be rebuilt."""
        self._known_skips, self._skipped = (), {}
        for standing in self._live():
            try:
                self._log.verify_cursor(standing.cursor)
            except CursorMismatch as error:
                self._to_rebuild(standing, error)

    def resume(self) -> None:
        """Let parked models try again: this release may know what the last one did not."""
        for standing in self._own():
            if standing.state == "parked":
                self._change(standing, replace(standing, state="live", error=None))

    def advance(self, *, without: Container[str] = ()) -> bool:
        """Move the hindmost models, but not those in `without`, one batch on.

        Return False if there was nothing to do.

        Raises `LogUnavailable` or `sqlite3.Error` if the disk is at fault, and `CursorMismatch` if
        the log was exchanged for another meanwhile; nothing has moved then.
        """
        connections = self._log.connections()
        if connections != self._connections:  # perhaps to another copy of the log
            self.verify()
            self._connections = connections
        head = self._log.head()
        running = [s for s in self._live() if s.model not in without and self._fits(s, head)]
        if self._up_to is not None:
            head = replace(head, position=min(head.position, self._up_to))
        after = min((s.cursor.position for s in running), default=head.position)
        if after >= head.position:
            return False
        self._look_at_skips()
        group = [s for s in running if s.cursor.position == after]
        alone = [s for s in group if s.model in self._narrowed or self._ahead(s)]
        group = alone[:1] or group
        ahead = [s.cursor.position for s in running if s.cursor.position > after]
        window = self._narrowed.get(group[0].model, self._window)
        to = self._end_of_append(Position(min(after + window, *ahead, head.position)), head)
        try:
            self._pass(group, to)
        except Poison as poison:
            self._stop_before(poison, group, head)
        except _Refused as refused:
            before = next(s for s in group if s.model == refused.model)
            self._narrow(before, to, head, refused)
        return True

    def _live(self) -> list[Standing]:
        return [standing for standing in self._own() if standing.state == "live"]

    def _own(self) -> list[Standing]:
        """Return the standings of the models that were built by this release's version."""
        return [
            standing
            for name, standing in self._views.standings().items()
            if name in self._models and standing.version == self._models[name].version
        ]

    def _fits(self, standing: Standing, head: Head) -> bool:
        cursor = standing.cursor
        if cursor.epoch != head.epoch:
            reason = f"epoch {head.epoch}, not {cursor.epoch}"
        elif cursor.position > head.position:
            reason = f"the log now ends at {head.position}"
        else:
            return True
        self._to_rebuild(standing, CursorMismatch(cursor.position, reason))
        return False

    def _look_at_skips(self) -> None:
        """Learn what is to be skipped of this log: what stands elsewhere now is another event."""
        skips = tuple(self._skips())
        if skips == self._known_skips:
            return
        valid = [skip for skip in skips if still_there(skip, self._log)]
        self._skipped = {
            model: frozenset(skip.position for skip in valid if skip.model == model)
            for model in self._models
        }
        self._known_skips = skips

    def _ahead(self, standing: Standing) -> bool:
        skipped = self._skipped.get(standing.model, frozenset())
        return any(position > standing.cursor.position for position in skipped)

    def _end_of_append(self, up_to: Position, head: Head) -> Cursor:
        """Return a cursor at the end of the append that holds the event at `up_to`."""
        events = self._log.read(after=Position(up_to - 1), up_to=head.position, limit=1)
        if not events:
            raise CursorMismatch(up_to, "the log ended before it a moment later")
        last = events[-1]
        self._last_at = last.recorded_at
        return Cursor(head.epoch, last.position, leaf_hash(last))

    # -- one batch -------------------------------------------------------------------------------

    def _pass(self, group: Sequence[Standing], to: Cursor) -> None:
        """Bring the group to `to` in one transaction; do nothing if another process was faster.

        Raises `Poison` or `_Refused`, and nothing has moved then.
        """
        self._at_step("looked")
        with self._views.transaction() as db:
            self._at_step("begun")
            now = standings(db)
            if any(now.get(before.model) != before for before in group):
                return
            kept, self._kept = self._kept, None  # else an error would leave what was undone
            if kept is None or kept.mark != _mark(db):
                kept = _Kept({}, None)
            models = [self._models[before.model] for before in group]
            sessions = [kept.sessions.get(model.name) or model.session(db) for model in models]
            for batches in self._batches(group, to):
                for before, session, batch in zip(group, sessions, batches, strict=True):
                    with _blaming(before.model):
                        session.apply(batch)
                del batches, batch  # the next page takes their place, in the processor's cache, too
                self._at_step("applied")
            if self._log.connections() != self._connections:
                for cursor in (*(before.cursor for before in group), to):
                    self._log.verify_cursor(cursor)
            for before, session in zip(group, sessions, strict=True):
                with _blaming(before.model):
                    session.flush()
                self._at_step("flushed")
                self._views.put(db, replace(before, cursor=to))
                self._at_step("moved")
            moved = {model.name: session for model, session in zip(models, sessions, strict=True)}
            after = _Kept({**kept.sessions, **moved}, _mark(db))
        self._kept = after
        self._at_step("committed")
        self.reached_at = self._last_at
        self.size = to.position - group[0].cursor.position
        for before in group:
            self._widen(before.model)

    def _batches(self, group: Sequence[Standing], to: Cursor) -> Iterator[list[list[Seen]]]:
        reading = self._reading(group)
        after = group[0].cursor.position
        skipped = self._skipped.get(group[0].model) if len(group) == 1 else None
        while after < to.position:
            up_to = Position(min(after + _CHUNK, to.position))
            yield self._page(reading, after, up_to, skipped)
            after = up_to
            self._on_chunk(up_to)

    def _page(
        self,
        reading: Reading,
        after: Position,
        up_to: Position,
        skipped: frozenset[Position] | None,
    ) -> list[list[Seen]]:
        rows = reading.scan(self._log, after, up_to)
        if skipped:
            rows = [row for row in rows if row[0] not in skipped]
        return reading.read(rows, self.names.of(set(map(_NUMBER, rows))))

    def _reading(self, group: Sequence[Standing]) -> Reading:
        names = tuple(standing.model for standing in group)
        if names not in self._readings:
            self._readings[names] = Reading(self._models[name] for name in names)
        return self._readings[names]

    def _widen(self, model: str) -> None:
        narrowed = self._narrowed.pop(model, self._window)
        if narrowed * 2 < self._window:
            self._narrowed[model] = narrowed * 2

    # -- what stops a model ----------------------------------------------------------------------

    def _stop_before(self, poison: Poison, group: Sequence[Standing], head: Head) -> None:
        """Bring the group to just before the poison's append; if it is there, park who reads it."""
        good = self._append_before(poison.position)
        if good > group[0].cursor.position:
            self._pass(group, self._end_of_append(good, head))
            return
        for standing in group:
            if poison.kind in self._models[standing.model].events:
                self._park(standing, str(poison))

    def _narrow(self, before: Standing, to: Cursor, head: Head, refused: _Refused) -> None:
        """Let the model go alone, half as far, down to one append: that one parks it."""
        first = Position(before.cursor.position + 1)
        if to.position > self._end_of_append(first, head).position:
            self._narrowed[before.model] = max(1, (to.position - before.cursor.position) // 2)
            return
        self._narrowed.pop(before.model, None)
        self._park(before, f"the append at {first} cannot be applied: {refused}")

    def _park(self, before: Standing, why: str) -> None:
        self._change(before, replace(before, state="parked", error=why))
        _log.error("READ_MODEL_PARKED", model=before.model, error=why)

    def _append_before(self, position: Position) -> Position:
        """Return the last position of the append before the one that holds `position`."""
        event = self._log.event_at(position)
        append_id = event.append_id if event else None
        while event is not None and event.append_id == append_id:
            position = Position(position - 1)
            event = self._log.event_at(position) if position else None
        return position

    def _to_rebuild(self, standing: Standing, error: CursorMismatch) -> None:
        self._change(standing, replace(standing, state="building", error=str(error)))
        _log.warning("READ_MODEL_REBUILD", model=standing.model, error=str(error))

    def _change(self, before: Standing, after: Standing) -> None:
        with self._views.transaction() as db:
            if standings(db).get(before.model) == before:
                self._views.put(db, after)


class _Kept(NamedTuple):
    """The sessions of the last transaction, which still know what rows the tables have."""

    sessions: dict[str, Session]
    """By model."""
    mark: _Mark | None


def _mark(db: sqlite3.Connection) -> _Mark:
    """Return what is another value as soon as anybody else has written to the file.

    Within a transaction that writes, so that nobody can do so meanwhile.
    """
    (others,) = db.execute("PRAGMA data_version").fetchone()
    return db, others, db.total_changes


@contextmanager
def _blaming(model: str) -> Iterator[None]:
    """Raise `_Refused` for an error that is the model's own, any other as it is."""
    try:
        yield
    except Exception as error:
        if isinstance(error, sqlite3.OperationalError):
            own = error.sqlite_errorcode in _MODELS_OWN
        else:
            own = not isinstance(error, (MemoryError, sqlite3.InternalError))
        if not own:
            raise
        raise _Refused(model, error) from error


class _Refused(Exception):
    """A model could not take a batch."""

    def __init__(self, model: str, error: Exception) -> None:
        self.model = model
        super().__init__(f"{type(error).__name__}: {error}")
