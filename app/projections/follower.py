"""The live follower: a thread that keeps the read models at the end of the log.

It is a thread of the server, or of a process of its own (`app.projections.following`).

It takes small batches as they are committed. What is far behind, and what is to be rebuilt from a
long log, it leaves to a child process (`app.projections.bulk`) and takes over where that ends.
"""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

import structlog

from app.caches import figures_of
from app.projections.bulk import BulkWorker
from app.projections.engine import Engine, Steps, no_steps
from app.projections.errors import RebuildRunning
from app.projections.model import ReadModel
from app.projections.progress import Progress, Report
from app.projections.queries import ModelStatus, models
from app.projections.rebuild import rebuild
from app.projections.skipping import SkipLedger
from app.projections.views import Standing, Views
from eventstore.errors import EventStoreError
from eventstore.lasting import Lasting
from eventstore.store import LogReader
from eventstore.subscription import Subscription
from eventstore.types import Position

_log = structlog.get_logger(__name__)

BULK_EVENTS: Final = 50_000
"""From so many events on, catching up is bulk work: several times what comes during a rest."""

_RETRY_SECONDS: Final = 30.0
_IDLE_SECONDS: Final = 1.0

_PAUSE_SECONDS: Final = 0.02
"""Between batches: a longer one costs less an event (docs/performance.md)."""


class Pace(NamedTuple):
    """How much is done at a time, and how long is rested before the next time.

    The longer a rest, the more events a batch has, the more of them share a row or a page, and the
    less each costs; and the older is what readers see.
    """

    window: int
    """Positions in a batch, at most."""
    rests: int
    """Times as long to rest as the last batch took."""
    longest: float = 0.25
    """Seconds to rest at most."""
    flood: int = sys.maxsize
    """So many positions in each of two batches are a flood; in one they may be a burst."""
    longest_in_flood: float = 0.25
    """Seconds."""


AS_THREAD: Final = Pace(window=2_000, rests=12)
"""Beside an event loop that wants the same interpreter."""

AS_PROCESS: Final = Pace(window=20_000, rests=6, longest=0.06, flood=800, longest_in_flood=1.0)
"""Beside other processes: under more than 10,000 events a second a fifth of a processor."""


class Follower:
    """Follows one log. `start` and `stop` it once; everything else is safe from any thread."""

    restarts: Final = 0
    """As a process it might have some; a thread does not end."""

    def __init__(  # noqa: PLR0913 - what follows what, and some knobs
        self,
        log: LogReader,
        views: Views,
        models: Sequence[ReadModel],
        *,
        ledger: SkipLedger | None = None,
        worker: bool | None = None,
        bulk_events: int = BULK_EVENTS,
        pace: Pace = AS_THREAD,
        progress: Progress | None = None,
        at_step: Steps = no_steps,
    ) -> None:
        """Prepare to keep `models` in `views`.

        `ledger` tells a new `views` what operators told models to skip. `worker` tells whether a
        child process finds this log; None: if it is `log.db` beside it. `progress` is told how
        far the models are.
        """
        self._worker = worker
        self._log = log
        self._views = views
        self._models = tuple(models)
        self._ledger = ledger
        self._engine = Engine(views, log, models, window=pace.window, at_step=at_step)
        self._at_step = at_step
        self._news = Subscription(log)
        self._bulk = BulkWorker(views.path.parent, on_end=self._news.wake)
        self._bulk_events = bulk_events
        self._asked_bulk: frozenset[str] = frozenset()
        self._not_before = 0.0
        self._look_at_file = 0.0
        self._failing = Lasting()
        self._tried: set[str] = set()
        self._pace = pace
        self._flooded = False
        self.progress = Progress(models) if progress is None else progress
        self._visible_seconds = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hilo-follower", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End after the batch in hand, and the child with it. Idempotent."""
        self._stopping.set()
        self._news.stop()
        if self._thread.ident is not None:
            self._thread.join()
        self.progress.end()

    def wake(self, _: Position | None = None) -> None:
        """Say that the log has grown."""
        self._news.wake()

    def lag(self) -> list[ModelStatus]:
        """Return how far each model is behind the log, and what stopped it if it is parked."""
        return models(self._views, self._log, self._models)

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        arrive: Callable[[], None] | None = self._arrive
        while not self._stopping.is_set():
            try:
                if self._has_other_file():
                    arrive = self._arrive
                if arrive is not None:
                    arrive()
                    arrive = None
                began = time.monotonic()
                moved = self._turn()
                self._failing.over()
                if moved:
                    self._stopping.wait(self._rest(time.monotonic() - began))
                else:
                    self._news.wait(_IDLE_SECONDS)
            except Exception as error:  # noqa: BLE001 - were this thread to end, nobody would know
                # Traffic goes on without read models; they are tried again.
                if self._failing.met():
                    told = f"{type(error).__name__}: {error}"
                    _log.warning("BD_THREAD_ERROR", doing="follow the log", error=told)
                arrive = arrive or self._engine.verify
                if self._has_damaged_file(error):
                    arrive = self._arrive
                self._stopping.wait(_IDLE_SECONDS)
        self._bulk.stop()

    def _has_other_file(self) -> bool:
        """Once a second, look whether the open file is in its place and nothing was done to it.

        Return True after going over to what is there instead, or to a new one.
        """
        now = time.monotonic()
        if now < self._look_at_file:
            return False
        self._look_at_file = now + _IDLE_SECONDS
        if not self._views.is_in_place:
            self._views.open_again()
            _log.warning("DERIVED_FILE_REPLACED", file=self._views.path.name)
            return True
        harm = self._views.harm
        if harm is None:
            return False
        self._views.replace(harm)
        return True

    def _has_damaged_file(self, error: Exception) -> bool:
        try:
            replaced = self._views.replace_if_damaged(error)
        except (sqlite3.Error, OSError) as another:  # it is tried again
            kind = type(another).__name__
            _log.warning("BD_THREAD_ERROR", doing="replace a damaged file", error=kind)
            return False
        if replaced:
            _log.warning("DERIVED_FILE_REPLACED", file=self._views.path.name)
        return replaced

    def _arrive(self) -> None:
        self._learn_skips()
        known = self._views.standings()
        for model in self._models:
            if model.name in known and known[model.name].version == model.version:
                self._views.migrate(model)
        self._engine.resume()
        self._engine.verify()

    def _learn_skips(self) -> None:
        """Ask the ledger. If it does not answer, what `views` knows has to do: a model parks."""
        if self._ledger is None:
            return
        try:
            self._views.learn_skips(self._ledger.recorded())
        except (EventStoreError, OSError) as error:
            kind = type(error).__name__
            _log.warning("BD_THREAD_ERROR", doing="read what is skipped", error=f"{kind}: {error}")

    def _turn(self) -> bool:
        """Do one piece of work. Return False if there was none."""
        standings = self._views.standings()
        self._note(standings)
        due = tuple(model for model in self._models if self._is_due(model, standings))
        far = self._far_behind(standings)
        moved = self._engine.advance(without=far)
        if due:
            moved = self._rebuild(due) or moved
        elif far:
            self._ask_bulk("catch-up", far)
        if moved:
            if reached_at := self._engine.reached_at:  # else it was a rebuild, not a batch
                self._visible_seconds = max(0, self._log.now() - reached_at) / 1e6
            self._note(self._views.standings())
        return moved

    def _is_due(self, model: ReadModel, standings: dict[str, Standing]) -> bool:
        standing = standings.get(model.name)
        if standing is None:
            return True
        if standing.state == "paused":
            return False
        if standing.state == "parked":  # once in the life of a process: it would only park again
            return standing.version != model.version and model.name not in self._tried
        return standing.version != model.version or standing.state == "building"

    def _far_behind(self, standings: dict[str, Standing]) -> frozenset[str]:
        if not self._has_worker():
            return frozenset()
        end = self._log.head().position - self._bulk_events
        return frozenset(
            model.name
            for model in self._models
            if (standing := standings.get(model.name)) is not None
            and standing.version == model.version
            and standing.state == "live"
            and standing.cursor.position < end
        )

    def _rebuild(self, due: Sequence[ReadModel]) -> bool:
        self._tried.update(model.name for model in due)
        if self._has_worker() and self._log.head().position > self._bulk_events:
            self._ask_bulk("rebuild", frozenset(model.name for model in due))
            return False
        try:
            rebuild(self._views, self._log, due, at_step=self._at_step)
        except RebuildRunning:
            return False
        return True

    def _ask_bulk(self, work: Literal["rebuild", "catch-up"], names: frozenset[str]) -> None:
        if self._bulk.running:
            return
        if names == self._asked_bulk and time.monotonic() < self._not_before:
            return
        self._asked_bulk = names
        self._not_before = time.monotonic() + _RETRY_SECONDS
        self._bulk.start(work, sorted(names))

    def _has_worker(self) -> bool:
        if self._worker is not None:
            return self._worker
        return (self._views.path.parent / "log.db").exists()

    def _note(self, standings: dict[str, Standing]) -> None:
        head = self._log.head().position
        names = figures_of(self._engine.names)
        self.progress.note(Report(standings, head, self._visible_seconds, names))

    def _rest(self, took: float) -> float:
        """Return how long to rest after a batch that took so many seconds."""
        pace, flooded = self._pace, self._flooded
        self._flooded = self._engine.size >= pace.flood
        longest = pace.longest_in_flood if flooded and self._flooded else pace.longest
        return max(_PAUSE_SECONDS, min(longest, pace.rests * took))
