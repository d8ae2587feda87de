"""How far the read models are, for those who wait for them or show it.

Whoever follows the log notes it here: a thread of this process, or one that hears it from another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from app.caches import Figures
from app.projections.model import ReadModel
from app.projections.views import Standing
from eventstore.types import Position


class Report(msgspec.Struct, frozen=True):
    """What somebody who follows a log knows after a batch."""

    standings: dict[str, Standing]
    head: Position
    """Where the log ended when it was last looked at."""
    visible_seconds: float
    """From the commit of the last event of the last batch until it could be read."""
    names: Figures
    """The names of the log's streams in memory."""


NOTHING = Report({}, Position(0), 0.0, Figures(size=0))
"""What is known before anybody has looked."""


class Progress:
    """How far some read models are. Safe from any thread."""

    def __init__(self, models: Sequence[ReadModel]) -> None:
        """Nothing is known yet."""
        self._models = tuple(model.name for model in models)
        self._changed = threading.Condition()
        self._report = NOTHING
        self._ended = False
        self._unbuilt_since: float | None = None
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener()` after each look, on the thread of whoever notes it."""
        self._listeners.append(listener)

    def note(self, report: Report) -> None:
        """Take what is known now, and let those look who wait."""
        with self._changed:
            self._report = report
            self._note_unbuilt()
            self._changed.notify_all()
        for listener in self._listeners:
            listener()

    def _note_unbuilt(self) -> None:
        if all(name in self._report.standings for name in self._models):
            self._unbuilt_since = None
        elif self._unbuilt_since is None:
            self._unbuilt_since = time.monotonic()

    @property
    def unbuilt_seconds(self) -> float | None:
        """For how long a model has had no tables at all; None if each has some."""
        since = self._unbuilt_since
        return None if since is None else time.monotonic() - since

    def end(self) -> None:
        """Say that nobody follows any more: who waits, waits in vain."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def report(self) -> Report:
        """What was noted last."""
        return self._report

    @property
    def position(self) -> Position:
        """The position that every read model has reached; 0 while one is being built."""
        report = self._report
        return min((_reached(report, name) for name in self._models), default=Position(0))

    def wait_for(self, position: Position, timeout: float, *, model: str | None = None) -> bool:
        """Return True when a model (or all) reflects `position`: what was written can be read.

        Returns False after `timeout` seconds, and at once if the model is parked or paused or
        nobody follows any more.
        """
        wanted = (model,) if model else self._models

        def there() -> bool:
            return all(_reached(self._report, name) >= position for name in wanted)

        def hopeless() -> bool:
            return self._ended or any(_is_stopped(self._report, name) for name in wanted)

        with self._changed:
            self._changed.wait_for(lambda: hopeless() or there(), timeout)
            return there()

    def numbers(self) -> dict[str, float]:
        """Return what `/metrics` shows of the read models, as of the last look; never waits.

        `…_lag_events_<model>`: events of the log that it does not reflect; `…_stopped_<model>`: 1
        while it is parked or paused; `…_visible_seconds`: see `Report`.
        """
        report = self._report
        numbers = {"read_models_visible_seconds": report.visible_seconds}
        for name in self._models:
            lag = max(0, report.head - _reached(report, name))
            numbers[f"read_model_lag_events_{name}"] = float(lag)
            numbers[f"read_model_stopped_{name}"] = float(_is_stopped(report, name))
        return numbers


def _reached(report: Report, model: str) -> Position:
    standing = report.standings.get(model)
    return standing.cursor.position if standing else Position(0)


def _is_stopped(report: Report, model: str) -> bool:
    standing = report.standings.get(model)
    return standing is not None and standing.state in {"parked", "paused"}
