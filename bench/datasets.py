"""The logs that the rows are measured on: an empty one, and one with a long past.

Built once per run, by bulk appends of real decisions; whoever writes gets a copy.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec

from app.aggregates.user import User
from app.aggregates.user_state import BLANK, UserState
from app.conversation.kinds import USER_CODEC
from bench.people import EVENTS_PER_TURN, Command, Person, TurnMaker, open_keyring, register
from eventstore.sqlite import SQLiteLog
from eventstore.types import Append, Appended, Epoch, Micros, StreamName, Version, new_append_id

EVENTS_PER_USER: Final = 20
EVENTS_OF_A_LIFE: Final = 2 + EVENTS_PER_TURN + 1
WORKING_SET: Final = 1000
"""People who take turns in the append rows."""
CHATTY: Final = 8000
"""People who write in the webhook rows: so many that few messages wait of each, as in life."""
CROWD: Final = 100_000
"""People of the log that memory is measured on, or a tenth of `--events`."""
_APPENDS_A_COMMIT: Final = 500
BOT: Final = "default"


class DataSet(msgspec.Struct, frozen=True):
    """One bot's directory (`log.db`, `keys.db`; `kek` beside it) and the people in it."""

    name: str
    directory: Path
    people: list[Person]
    events: int

    @property
    def data(self) -> Path:
        """What `hilo serve --data` takes."""
        return self.directory.parent

    def copy(self, target: Path) -> DataSet:
        """A copy that may be written to: everything is closed and checkpointed here."""
        shutil.copytree(self.data, target)
        return DataSet(self.name, target / BOT, self.people, self.events)


class DataSets:
    """Makes the data sets when they are first asked for, under one temporary directory."""

    def __init__(self, root: Path, *, events: int, say: Callable[[str], None]) -> None:
        """`events` is the size of the long log."""
        self.root = root
        self.events = events
        self._say = say
        self._copies = 0

    @cached_property
    def empty(self) -> DataSet:
        """A log without events; its people are known to the keyring."""
        return self._make("empty log", users=min(CHATTY, max(WORKING_SET, self.events)), events=0)

    @cached_property
    def long(self) -> DataSet:
        """A log of `events` events, twenty a user."""
        users = max(10, self.events // EVENTS_PER_USER)
        name = f"{thousands(self.events)} events of {thousands(users)} users"
        self._say(f"building a log of {name} …")
        return self._make(name, users=users, events=self.events)

    @cached_property
    def crowd(self) -> DataSet:
        """Many people who took one turn each, whose activity is recorded: nothing is due."""
        users = min(CROWD, max(10, self.events // 10))
        name = f"{thousands(users * EVENTS_OF_A_LIFE)} events of {thousands(users)} users"
        self._say(f"building a log of {name} …")
        return self._make(name, users=users, events=users * EVENTS_OF_A_LIFE, steps=lives)

    @property
    def both(self) -> tuple[DataSet, DataSet]:
        """The empty one and the long one."""
        return self.empty, self.long

    def scratch(self, name: str) -> Path:
        """A new path for a row's own files."""
        self._copies += 1
        return self.root / f"{self._copies}-{name}"

    def copy(self, original: DataSet) -> DataSet:
        """A copy of a data set that may be written to."""
        return original.copy(self.scratch("copy"))

    def _make(self, name: str, *, users: int, events: int, steps: Steps | None = None) -> DataSet:
        directory = self.scratch("data") / BOT
        directory.mkdir(parents=True)
        keyring = open_keyring(directory)
        log = SQLiteLog(directory / "log.db", server=True)
        try:
            people = register(keyring, users)
            made = append_history(log, (steps or history)(TurnMaker(keyring), people), events)
        finally:
            log.close()
            keyring.close()
        return DataSet(name, directory, people, made)


Step = tuple[Person, Command, int]
"""Who, what is decided, and how many events that is."""

Steps = Callable[[TurnMaker, list[Person]], Iterator[Step]]
"""What happens to people."""


def history(maker: TurnMaker, people: list[Person]) -> Iterator[Step]:
    """What happens to the people: each is met, then they take turns, round and round, for ever."""
    for person in people:
        yield person, maker.first_contact(person), 2
    while True:
        for person in people:
            yield person, maker.exchange(person).record, EVENTS_PER_TURN


def lives(maker: TurnMaker, people: list[Person]) -> Iterator[Step]:
    """Each is met, takes one turn, and is left with nothing open."""
    for person in people:
        exchange = maker.exchange(person)

        def record_activity(user: User, now: Micros = exchange.at) -> None:
            user.record_activity(now=now, delay=0)

        yield person, maker.first_contact(person), 2
        yield person, exchange.record, EVENTS_PER_TURN
        yield person, record_activity, 1


def append_history(log: SQLiteLog, steps: Iterator[Step], most: int) -> int:
    """Append at most `most` events, many appends a commit; return how many it were."""
    states: dict[StreamName, tuple[UserState, int]] = {}
    epoch = log.head().epoch
    appends: list[Append] = []
    made = 0
    for person, command, size in steps:
        if made + size > most:
            break
        appends.append(decided(person.stream, command, states, epoch))
        made += size
        if len(appends) == _APPENDS_A_COMMIT:
            commit(log, appends)
            appends = []
    commit(log, appends)
    return made


def decided(
    stream: StreamName,
    command: Command,
    states: dict[StreamName, tuple[UserState, int]],
    epoch: Epoch,
) -> Append:
    """The append that a command decides upon the state in `states`, which is moved on."""
    state, version = states.get(stream, (BLANK, 0))
    user = User(stream, state, Version(version))
    command(user)
    events = tuple(USER_CODEC.encode(event, key) for event, key in user.collect_events())
    states[stream] = (user.state, version + len(events))
    return Append(stream, Version(version), events, epoch, new_append_id())


def commit(log: SQLiteLog, appends: list[Append]) -> None:
    """Append all of them in one transaction. Raises whatever one of them was refused with."""
    if appends:
        for answer in log.append_batch(appends):
            if not isinstance(answer, Appended):
                raise answer


def thousands(number: int) -> str:
    """The number as a person writes it: 1,000,000."""
    return f"{number:,}"
