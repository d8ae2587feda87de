"""The raw side of the rows with one caller: the same past, people and turns, and `sqlite3`.

What a turn decides is decided before the clock starts: who writes rows by hand has no aggregate.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from app.aggregates.events import MessageReceived, RunCompleted
from app.aggregates.user import User
from app.aggregates.user_state import BLANK, UserState
from app.conversation.kinds import USER_CODEC
from bench.datasets import DataSet
from bench.ours import OurLog
from bench.peers.raw_sqlite import RawLog, Row
from bench.people import EVENTS_PER_TURN, Person, TurnMaker
from bench.plan import Plan
from eventstore.codec import Event
from eventstore.types import AppendId, IdempotencyKey, StreamName, Version, new_append_id

Keyed = tuple[Event, IdempotencyKey | None]


class Turn(NamedTuple):
    """What one turn decided."""

    person: Person
    version: int
    """Of the stream, before it."""
    events: Sequence[Keyed]
    append_id: AppendId


class ByHand:
    """Raw `sqlite3` with the same past and the same turns."""

    def __init__(self, plan: Plan, data: DataSet, ours: OurLog) -> None:
        """Copy the data set's events into a plain table."""
        past = data.directory / "log.db" if data.events else None
        self._raw = RawLog(plan.sets.scratch("raw.db"), past)
        self._states: dict[StreamName, tuple[UserState, int]] = {
            person.stream: (BLANK, ours.log.stream_version(person.stream)) for person in ours.people
        }
        self._ids = {person.stream: number for number, person in enumerate(data.people, start=1)}
        self._maker = TurnMaker(ours.keyring, seed=13)
        self._next = itertools.cycle(ours.people)

    def take_turns(self, turns: int) -> float:
        """Seal, key, encode and commit so many turns, one by one; return events per second."""
        prepared = self._prepared(turns)
        start = time.perf_counter()
        for turn in prepared:
            self._raw.append(self._rows(turn, self._sealed(turn)))
        return turns * EVENTS_PER_TURN / (time.perf_counter() - start)

    def commit_rows(self, turns: int) -> float:
        """Commit so many turns of which all the rest was done before; return events per second."""
        position = self._raw.position
        prepared = []
        for turn in self._prepared(turns):
            prepared.append(self._rows(turn, turn.events, after=position))
            position += EVENTS_PER_TURN
        start = time.perf_counter()
        for rows in prepared:
            self._raw.append(rows)
        return turns * EVENTS_PER_TURN / (time.perf_counter() - start)

    def _prepared(self, turns: int) -> list[Turn]:
        return [self._decided(person) for person in itertools.islice(self._next, turns)]

    def _decided(self, person: Person) -> Turn:
        state, version = self._states[person.stream]
        user = User(person.stream, state, Version(version))
        self._maker.exchange(person).record(user)
        events = user.collect_events()
        self._states[person.stream] = user.state, version + len(events)
        return Turn(person, version, events, new_append_id())

    def _sealed(self, turn: Turn) -> list[Keyed]:
        """The same turn with both texts sealed, and the message's key made, now."""
        exchange = self._maker.exchange(turn.person)
        sealed: list[Keyed] = []
        for event, key in turn.events:
            if isinstance(event, MessageReceived):
                received = replace(event, ref=exchange.ref, content=exchange.content)
                sealed.append((received, exchange.ref))
            elif isinstance(event, RunCompleted):
                sealed.append((replace(event, reply=exchange.reply), key))
            else:
                sealed.append((event, key))
        return sealed

    def _rows(self, turn: Turn, events: Sequence[Keyed], *, after: int | None = None) -> list[Row]:
        encode = USER_CODEC.encode
        stream = self._ids[turn.person.stream]
        position = self._raw.position if after is None else after
        now = time.time_ns() // 1000
        rows: list[Row] = []
        for number, (event, key) in enumerate(events, start=1):
            new = encode(event, key)
            place = (position + number, stream, turn.version + number)
            rows.append((*place, new.type, now, new.key, turn.append_id, new.state))
        return rows

    def close(self) -> None:
        """Close the file."""
        self._raw.close()
