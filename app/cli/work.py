"""Who has open or parked turns, from beside the server: few streams are replayed, not all.

Parked turns are found by their events, filtered in SQL. For open ones the server's to-do list
(`todo.db`) is a position and the streams that had open work there; streams that the log mentions
after it are looked at as well. Without a list that fits the log every user is looked at.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import quote

import msgspec

from app.aggregates import open_work as w
from app.aggregates.events import TurnParked
from app.aggregates.user_state import UserState
from app.cli.output import bar
from app.cli.replay import user_of
from app.cli.selection import Selection, pages
from app.installation import USER_PREFIX
from eventstore.errors import CursorMismatch
from eventstore.types import Cursor, Epoch, Position, StreamName

if TYPE_CHECKING:
    from app.installation import Installation

Standing = Literal["parked", "waiting", "running", "delivering"]

_START: Final = Position(0)


class OpenTurn(msgspec.Struct, frozen=True):
    """A turn that is not over. Instants are µs of the log's time."""

    user: str
    state: Standing
    messages: int
    """Messages that wait for it; 0 while its reply is delivered."""
    since: int
    attempts: int
    detail: str


def open_turns(here: Installation) -> list[OpenTurn]:
    """Return every turn that is not over, the oldest first."""
    streams = parked_streams(here) | _open_streams(here)
    turns: list[OpenTurn] = []
    with bar("looking at users", len(streams)) as progress:
        for done, stream in enumerate(sorted(streams)):
            turns += turns_of(stream, user_of(here, stream).state)
            progress.at(done)
    return sorted(turns, key=lambda turn: turn.since)


def parked_streams(here: Installation) -> set[StreamName]:
    """Return the streams in which a turn was ever parked."""
    wanted = Selection(types=here.codec.stored_names([TurnParked]))
    found = pages(here.log, wanted, after=_START, up_to=here.log.head().position)
    return {event.stream for _, page in found for event in page}


def turns_of(stream: StreamName, state: UserState) -> Iterator[OpenTurn]:
    """Yield what one user's state leaves open: at most one turn of each kind."""
    user = stream.removeprefix(USER_PREFIX)
    if (parked := state.parked) is not None:
        detail = f"{parked.reason}, {_counted(parked.turns, 'turn')}"
        messages = w.total(parked.messages)
        yield OpenTurn(user, "parked", messages, parked.at, parked.attempts, detail)
    if (run := state.run) is not None:
        claimed = tuple(entry for entry in state.pending if entry.version <= run.up_to)
        detail = f"run {run.id} on {run.node}"
        yield OpenTurn(user, "running", w.total(claimed), run.started_at, run.attempt, detail)
    claimed_up_to = 0 if state.run is None else state.run.up_to
    waiting = tuple(entry for entry in state.pending if entry.version > claimed_up_to)
    if waiting:
        attempts = state.attempts if state.run is None else 0
        yield OpenTurn(user, "waiting", w.total(waiting), waiting[0].at, attempts, "")
    if (delivery := state.delivery) is not None:
        what = "apology" if delivery.apology else "reply"
        detail = f"{what} of run {delivery.run}, part {delivery.next_part + 1} of {delivery.parts}"
        yield OpenTurn(user, "delivering", 0, delivery.opened_at, delivery.attempt, detail)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _open_streams(here: Installation) -> set[StreamName]:
    listed = _to_do_list(here)
    if listed is None:
        return {stream.name for stream in here.log.streams(USER_PREFIX)}
    position, streams = listed
    later = pages(here.log, Selection(), after=position, up_to=here.log.head().position)
    return streams | {
        event.stream for _, page in later for event in page if event.stream.startswith(USER_PREFIX)
    }


def _to_do_list(here: Installation) -> tuple[Position, set[StreamName]] | None:
    """Return the server's list, if it has one and it was made from this log."""
    path = here.settings.bot_directory / "todo.db"
    if not path.is_file():
        return None
    try:
        connection = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=rw", uri=True)
        try:
            connection.execute("BEGIN")
            row = connection.execute("SELECT epoch, position, leaf FROM todo_cursor").fetchone()
            streams = {StreamName(r[0]) for r in connection.execute("SELECT stream FROM todo")}
        finally:
            connection.close()
        if row is None:
            return None
        here.log.verify_cursor(Cursor(Epoch(row[0]), Position(row[1]), row[2]))
    except (sqlite3.Error, CursorMismatch):
        return None
    return Position(row[1]), streams
