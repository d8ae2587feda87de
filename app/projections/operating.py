"""What an operator does to a read model from beside the server: pause, resume, skip an event.

Each is one small transaction on `views.db`; the server's follower sees it within a second. None of
them touches the log, a row, or another model.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from msgspec.structs import replace

from app.projections.errors import NotBuilt, NotThatState
from app.projections.model import ReadModel
from app.projections.scan import stored_names
from app.projections.skipping import Skip, SkipLedger
from app.projections.views import Standing, Views, standings
from eventstore.integrity import leaf_hash
from eventstore.store import LogReader
from eventstore.types import Position


def pause(views: Views, model: ReadModel, *, by: str, why: str = "") -> Standing:
    """Stop a model where it is, until `resume`: its rows stand still and stay readable.

    It outlives restarts, releases and rebuilds. Raises `NotBuilt`, or `NotThatState` if it is
    parked, which stops it already.
    """
    reason = f"paused by {by}: {why}" if why else f"paused by {by}"

    def change(before: Standing) -> Standing:
        if before.state == "parked":
            raise NotThatState(model.name, before.state, "pause", "it has stopped by itself")
        return replace(before, state="paused", error=reason)

    return _changed(views, model, change)


def resume(views: Views, model: ReadModel) -> Standing:
    """Let a paused model follow again, and a parked one try its event again.

    Raises `NotBuilt`, or `NotThatState` if nothing stopped it.
    """

    def change(before: Standing) -> Standing:
        _refuse_what_goes_on(before)
        return replace(before, state="live", error=None)

    return _changed(views, model, change)


def refuse_to_resume(views: Views, model: ReadModel) -> None:
    """Raise what `resume` would, and change nothing."""
    _refuse_what_goes_on(_standing(views, model))


def _refuse_what_goes_on(standing: Standing) -> None:
    if standing.state not in {"paused", "parked"}:
        raise NotThatState(standing.model, standing.state, "resume", "nothing has stopped it")


def skip(  # noqa: PLR0913 - what of what, where it is recorded, and who answers for it
    views: Views,
    log: LogReader,
    model: ReadModel,
    ledger: SkipLedger,
    *,
    position: Position,
    by: str,
    why: str,
) -> Skip:
    """Let a parked model pass over the event at `position`, and try again.

    Recorded in the ledger first. Raises `NotBuilt`, or `NotThatState` if the model is not parked
    or the event is not one of the append that stopped it.
    """
    parked = _standing(views, model)
    if parked.state != "parked":
        raise NotThatState(model.name, parked.state, "skip", "no event has stopped it")
    event = log.event_at(position)
    first = log.event_at(Position(parked.cursor.position + 1))
    if event is None or first is None or event.append_id != first.append_id:
        stopped = f"it has stopped before the append at {parked.cursor.position + 1}"
        raise NotThatState(model.name, parked.state, f"skip {position}", stopped)
    if event.type not in stored_names(model):
        wanted = f"it takes no {event.type}"
        raise NotThatState(model.name, parked.state, f"skip {position}", wanted)
    made = Skip(model.name, position, leaf_hash(event), by, why, log.now())
    ledger.record(made)
    views.learn_skips(ledger.recorded())
    _changed(views, model, lambda before: replace(before, state="live", error=None))
    return made


def _standing(views: Views, model: ReadModel) -> Standing:
    standing = views.standings().get(model.name)
    if standing is None:
        raise NotBuilt(model.name)
    return standing


def _changed(views: Views, model: ReadModel, change: Callable[[Standing], Standing]) -> Standing:
    with views.transaction() as db:
        before = _of(db, model)
        after = change(before)
        views.put(db, after)
    return after


def _of(db: sqlite3.Connection, model: ReadModel) -> Standing:
    standing = standings(db).get(model.name)
    if standing is None:
        raise NotBuilt(model.name)
    return standing
