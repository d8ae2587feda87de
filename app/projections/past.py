"""The past: read models as they were at a position, in a file of their own.

The models' `apply` depends on nothing but events, so what it makes of the log up to a position is
what the live tables held when they were there. Bulk work: belongs into the worker process.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app.projections.engine import BULK_WINDOW, Engine, Progress, no_progress
from app.projections.model import ReadModel
from app.projections.skipping import Skip
from app.projections.views import Views
from eventstore.moments import checked_cut
from eventstore.store import LogReader
from eventstore.types import Position


def build_at(  # noqa: PLR0913 - what of what, until when, and where
    path: Path,
    log: LogReader,
    models: Sequence[ReadModel],
    position: Position,
    *,
    skips: Sequence[Skip] = (),
    progress: Progress = no_progress,
) -> Views:
    """Build `models` in a new file at `path` from the events up to `position`; the caller closes.

    The queries answer from it as from the live ones. A model that meets an event that it cannot
    take is parked before it: see `Views.standings`. Raises as `eventstore.moments.checked_cut` does
    if nobody could have asked then.
    """
    checked_cut(log, position)
    epoch = log.head().epoch
    views = Views(path)
    try:
        views.begin(models, epoch)
        engine = Engine(
            views,
            log,
            models,
            window=BULK_WINDOW,
            up_to=position,
            skips=lambda: skips,
            on_chunk=progress,
        )
        while engine.advance():
            pass
    except BaseException:
        views.close()
        raise
    return views
