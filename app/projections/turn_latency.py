"""The latency of turns, part by part: one row a turn, so that percentiles are exact.

A turn is timed by the log's own clock, from the first message that it answers to the last part
of its reply that was handed over:

    first message ─ gathering ─ last message ─ waiting ─ claimed ─ retrying ─ last run started
    ─ submitting ─ response named ─ thinking ─ completed ─ handing_over ─ ended

The messages are those that the first run claimed; `retrying` is 0 if that run succeeded. A part
is NULL where the turn never came that far. `total` is the sum; `reply` begins at the last message
that the turn answers, which may have come between two runs.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

import msgspec
from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from app.projections.model import ReadModel, Seen, Session
from app.projections.open_turns import TAKE, TURN_EVENTS, OpenTurn, Turn
from app.projections.people import KEPT_ROWS, PREFIX
from app.projections.tally import HOUR, hour_text
from app.projections.writing import insert_rows

PARTS: Final = ("gathering", "waiting", "retrying", "submitting", "thinking", "handing_over")
"""Parts of a turn in their order, in µs."""

_COLUMNS: Final = (
    *("position", "hour", "user", "outcome", "messages", "runs", "ended_at"),
    *PARTS,
    *("total", "reply"),
)
_INSERT: Final = f"INSERT INTO turns ({', '.join(_COLUMNS)})"
_SELECT: Final = """
SELECT user, state FROM open_turns WHERE user IN (SELECT value FROM json_each(?))
"""
_MAX_OPEN: Final = 200_000
_pack: Final[Callable[[OpenTurn], bytes]] = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(OpenTurn).decode
_migrations = Migrations("turn_latency")


@_migrations()
def tables(db: Database) -> None:
    """Make the tables: turns that have ended, and what is open of the others."""
    nullable = {"submitting", "thinking", "handing_over"}
    columns: dict[str, type] = dict.fromkeys(_COLUMNS, int)
    columns |= dict.fromkeys(("hour", "user", "outcome"), str)
    db.table("turns").create(
        columns, pk="position", not_null=columns.keys() - nullable, strict=True
    )
    db.table("turns").create_index(["hour"])
    db.table("open_turns").create(
        {"user": str, "state": bytes}, pk="user", not_null={"user", "state"}, strict=True
    )


class TurnLatency(ReadModel):
    """How long people wait, and for what."""

    name = "turn_latency"
    version = 2
    tables = ("turns", "open_turns")
    migrations = _migrations
    events: ClassVar = TURN_EVENTS

    def session(self, db: sqlite3.Connection) -> Session:
        """Take part in the transaction that is open on `db`."""
        return _LatencySession(db)


def row_of(position: int, user: str, turn: Turn) -> tuple[int | str | None, ...]:
    """Return a turn as a row of `turns`; `position` is that of the event that ended it."""
    completed, submitted = turn.completed_at, turn.submitted_at
    return (
        position,
        hour_text(turn.ended_at // HOUR),
        user,
        turn.outcome,
        turn.messages,
        turn.runs,
        turn.ended_at,
        turn.gathered_at - turn.first_at,
        turn.claimed_at - turn.gathered_at,
        turn.started_at - turn.claimed_at,
        None if submitted is None else submitted - turn.started_at,
        None if submitted is None or completed is None else completed - submitted,
        None if completed is None else turn.ended_at - completed,
        turn.ended_at - turn.first_at,
        turn.ended_at - turn.last_at,
    )


class _LatencySession(Session):
    """Keeps the open turns of the transaction's users, so that each is read and written once."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._open = defaultdict[str, OpenTurn](OpenTurn)
        self._written: dict[str, bytes] = {}
        """What the table has of a stream, as far as is known; empty: no row."""
        query = "SELECT NOT EXISTS (SELECT 1 FROM open_turns)"
        self._blank = bool(db.execute(query).fetchone()[0])  # then there is nothing to load

    def apply(self, batch: Sequence[Seen]) -> None:
        if len(self._open) > _MAX_OPEN:
            self.flush()
        if not self._blank:
            self._load({seen[1] for seen in batch}.difference(self._open))
        open_turns, take, forgets = self._open, TAKE, self._blank
        ended = []
        for position, stream, at, kind, event in batch:
            now = open_turns[stream]
            turn = take[kind](now, at, event)
            if turn is not None:
                ended.append(row_of(position, stream.removeprefix(PREFIX), turn))
                if forgets and now.is_blank:  # few are open: they stay in the processor's cache
                    del open_turns[stream]
        insert_rows(self._db, _INSERT, ended)  # now: a rebuild has a million of them in hand else

    def flush(self) -> None:
        written, open_rows, closed = self._written, [], []
        for stream, turn in sorted(self._open.items()):
            state = b"" if turn.is_blank else _pack(turn)
            if state:
                open_rows.append((_user(stream), state))
            elif written.get(stream):
                closed.append((_user(stream),))
            written[stream] = state
        self._db.executemany("DELETE FROM open_turns WHERE user = ?", closed)
        insert_rows(self._db, "INSERT OR REPLACE INTO open_turns (user, state)", open_rows)
        self._open.clear()
        self._blank = False
        if len(written) > KEPT_ROWS:
            written.clear()

    def _load(self, streams: set[str]) -> None:
        written = self._written
        unknown = streams - written.keys()
        if unknown:
            written |= dict.fromkeys(unknown, b"")
            users = json.dumps([_user(stream) for stream in unknown])
            for user, state in self._db.execute(_SELECT, (users,)):
                written[PREFIX + user] = state
        for stream in streams:
            state = written[stream]
            if state:
                self._open[stream] = _unpack(state)


def _user(stream: str) -> str:
    return stream.removeprefix(PREFIX)


TURN_LATENCY = TurnLatency()
