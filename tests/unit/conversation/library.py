"""A library of books of notes: aggregates whose state shows every event that made it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from app.aggregates.stream import Aggregate
from app.conversation.kind import Triggered
from app.conversation.repository import Repository
from eventstore.codec import Codec, Event
from eventstore.errors import EventStoreError
from eventstore.sqlite import SQLiteLog
from eventstore.store import LogReader, LogStore
from eventstore.types import (
    Append,
    IdempotencyKey,
    Micros,
    Recorded,
    StreamName,
    Version,
    new_append_id,
)
from eventstore.writer import Writer
from tests.conformance.appends import key
from tests.conformance.held import HeldCommits
from tests.conformance.stores import FakeClock, SQLiteFactory

ANA = StreamName("user/ana")
BEN = StreamName("user/ben")
Notes = tuple[str, ...]


class Noted(Event, frozen=True):
    """Somebody wrote something down."""

    text: str = msgspec.field(name="t")


class Book(Aggregate[Notes]):
    """What was written down, in order; the newest 100."""

    __slots__ = ()

    def note(self, text: str, unique: IdempotencyKey | None = None) -> Notes:
        self._trigger(Noted(text=text), Micros(0), unique)
        return self.state

    def _evolve(self, event: Event, version: Version, now: Micros) -> Notes:
        return BOOKS.evolve(self.state, event, version, now)


class Books:
    """The kind of aggregate that books are."""

    codec = Codec([Noted])
    shape = b"books of notes.."

    def blank(self, _: StreamName) -> Notes:
        return ()

    def evolve(self, state: Notes, event: Event, _: Version, __: Micros) -> Notes:
        assert isinstance(event, Noted)
        return (*state[-99:], event.text)

    def revive(
        self, stream: StreamName, state: Notes, version: Version, *, read_only: bool
    ) -> Book:
        return Book(stream, state, version, read_only=read_only)

    def collect(self, aggregate: Book) -> Sequence[Triggered]:
        return aggregate.collect_events()

    def state_of(self, aggregate: Book) -> Notes:
        return aggregate.state

    def pack(self, state: Notes) -> bytes:
        return msgspec.msgpack.encode(state[-3:])

    def unpack(self, state: bytes) -> Notes:
        return msgspec.msgpack.decode(state, type=Notes)


BOOKS = Books()
Shelf = Repository[Book, Notes]


class Counting(SQLiteLog):
    """A log that counts the events that are read from it."""

    read_events = 0

    def read_stream(
        self,
        stream: StreamName,
        *,
        after: Version = Version(0),  # noqa: B008 - an int
        up_to: Version | None = None,
        limit: int | None = None,
    ) -> list[Recorded]:
        found = super().read_stream(stream, after=after, up_to=up_to, limit=limit)
        self.read_events += len(found)
        return found


class Library:
    """A log, one process's way to it, and as many others as a test wants."""

    def __init__(self, folder: Path) -> None:
        self.factory = SQLiteFactory(folder)
        self.log = self.factory.open(clock=FakeClock())
        self.readers = ThreadPoolExecutor(2)
        self._writers: list[Writer] = []
        self._logs: list[SQLiteLog] = []

    def held(self, *, capacity: int = 10_000) -> tuple[Shelf, HeldCommits]:
        """A shelf whose commits wait for the test."""
        store = HeldCommits(self.log)
        writer = store.writer(capacity=capacity)
        self._writers.append(writer)
        return self.shelf(self.log, writer), store

    def shelf(
        self, log: LogReader | None = None, writer: Writer | None = None, **more: int
    ) -> Shelf:
        """A repository of books: of this process, or of another with its own connections."""
        if writer is None:
            store = self.factory.open(clock=FakeClock())
            writer = Writer(store)
            self._writers.append(writer)
            log = log or store
        assert log is not None
        return Repository(BOOKS, log=log, writer=writer, readers=self.readers, **more)

    def counting(self) -> Counting:
        """One more way to read the log, which counts."""
        log = Counting(self.factory.path)
        self._logs.append(log)
        return log

    def texts(self, stream: StreamName = ANA) -> Notes:
        """What the log holds, in order."""
        rows = self.log.read_stream(stream)
        assert [row.version for row in rows] == list(range(1, len(rows) + 1))
        events = [BOOKS.codec.decode(row.type, row.state) for row in rows]
        return tuple(event.text for event in events if isinstance(event, Noted))

    def close(self) -> None:
        for writer in self._writers:
            writer.close()
        self.readers.shutdown()
        for log in self._logs:
            log.close()
        self.factory.close()


def note(text: str, unique: str = "") -> Callable[[Book], Notes]:
    """The command that writes something down."""
    return lambda book: book.note(text, key(unique) if unique else None)


def noting_what_is_seen(text: str, seen: list[Notes]) -> Callable[[Book], Notes]:
    """The command that writes something down, and shows what it was decided upon."""

    def command(book: Book) -> Notes:
        seen.append(book.state)
        return book.note(text)

    return command


def look(book: Book) -> Notes:
    """A decision that changes nothing."""
    return book.state


async def before_the_gate(store: HeldCommits) -> None:
    """Return when a commit waits before the gate."""
    await asyncio.to_thread(store.gate.wait_for_commit)


async def other_tasks() -> None:
    """Let whatever can go on go on."""
    for _ in range(10):
        await asyncio.sleep(0)


def long_life(log: LogStore, events: int) -> None:
    """Give somebody a long history."""
    epoch = log.head().epoch
    for start in range(0, events, 1000):
        new = tuple(BOOKS.codec.encode(Noted(text=str(n))) for n in range(start, start + 1000))
        answers = log.append_batch([Append(ANA, Version(start), new, epoch, new_append_id())])
        assert not isinstance(answers[0], EventStoreError)
