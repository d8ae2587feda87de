"""Aggregates in memory: durable before answered, decided again after conflicts, as replayed.

The aggregate here is a book of notes, so that a state shows every event that made it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from app.aggregates.stream import Aggregate
from app.conversation.repository import LIFETIME, Repository, Triggered
from eventstore.codec import Codec, Event
from eventstore.errors import (
    AppendRejected,
    DuplicateKey,
    EventStoreError,
    LogUnavailable,
    QueueFull,
)
from eventstore.sqlite import SQLiteLog
from eventstore.store import LogReader, LogStore
from eventstore.types import (
    Append,
    Epoch,
    IdempotencyKey,
    Micros,
    NewEvent,
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


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    library = Library(tmp_path)
    yield library
    library.close()


@pytest.fixture
def told() -> list[Notes]:
    """States that were announced."""
    return []


def note(text: str, unique: str = "") -> Callable[[Book], Notes]:
    """The command that writes something down."""
    return lambda book: book.note(text, key(unique) if unique else None)


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


# -- durable before answered -----------------------------------------------------------------------


async def test_an_answer_is_given_when_it_is_durable_and_not_before(library: Library) -> None:
    shelf, store = library.held()
    asking = asyncio.create_task(shelf.record(ANA, note("one")))
    await before_the_gate(store)
    assert not asking.done()
    assert library.texts() == ()
    store.gate.open()
    assert await asking == ("one",)
    assert library.texts() == ("one",)


async def test_an_answer_without_events_waits_for_what_it_was_based_on(library: Library) -> None:
    shelf, store = library.held()
    writing = asyncio.create_task(shelf.record(ANA, note("one")))
    await before_the_gate(store)
    looking = asyncio.create_task(shelf.record(ANA, look))
    await other_tasks()
    assert not looking.done()
    store.gate.open()
    assert await looking == ("one",)
    await writing


async def test_facts_do_not_wait_for_each_other(library: Library) -> None:
    shelf, store = library.held()
    tasks = [asyncio.create_task(shelf.record(ANA, note(text))) for text in "abcd"]
    await before_the_gate(store)
    store.gate.open()
    assert await asyncio.gather(*tasks) == [
        ("a",),
        ("a", "b"),
        ("a", "b", "c"),
        ("a", "b", "c", "d"),
    ]
    assert len(store.batches) <= 2
    assert library.texts() == ("a", "b", "c", "d")


async def test_a_decision_waits_for_what_is_on_its_way(library: Library) -> None:
    shelf, store = library.held()
    fact = asyncio.create_task(shelf.record(ANA, note("a fact")))
    await before_the_gate(store)
    seen: list[Notes] = []

    def decided(book: Book) -> Notes:
        seen.append(book.state)
        return book.note("decided")

    deciding = asyncio.create_task(shelf.decide(ANA, decided))
    await other_tasks()
    later = asyncio.create_task(shelf.record(ANA, note("a later fact")))
    await other_tasks()
    assert seen == []
    store.gate.open()
    assert await deciding == ("a fact", "decided")
    assert await later == ("a fact", "decided", "a later fact"), "facts do not starve decisions"
    await fact
    assert seen == [("a fact",)]


async def test_nothing_is_decided_upon_an_event_that_never_came_to_be(library: Library) -> None:
    shelf, store = library.held()
    await shelf.look(ANA)
    fact = asyncio.create_task(shelf.record(ANA, note("ours")))
    await before_the_gate(store)
    seen: list[Notes] = []

    def decided(book: Book) -> Notes:
        seen.append(book.state)
        return book.note("decided")

    deciding = asyncio.create_task(shelf.decide(ANA, decided))
    await other_tasks()
    theirs = Append(
        ANA, Version(0), (BOOKS.codec.encode(Noted(text="theirs")),), Epoch(1), new_append_id()
    )
    assert not isinstance(library.log.append_batch([theirs])[0], EventStoreError)
    store.fail_next = LogUnavailable("no disk")
    store.gate.open()
    with pytest.raises(LogUnavailable):
        await fact
    assert await deciding == library.texts() == ("theirs", "decided")
    assert ("ours",) not in seen


async def test_a_decision_whose_caller_goes_away_holds_nobody_up(library: Library) -> None:
    shelf, store = library.held()
    fact = asyncio.create_task(shelf.record(ANA, note("a fact")))
    await before_the_gate(store)
    gone = asyncio.create_task(shelf.decide(ANA, note("never")))
    await other_tasks()
    gone.cancel()
    await other_tasks()
    more = asyncio.create_task(shelf.record(ANA, note("more")))
    await other_tasks()
    store.gate.open()
    assert await more == ("a fact", "more")
    await fact
    assert len(store.batches) == 2


# -- what fails ------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [LogUnavailable("no disk"), AppendRejected("too large")])
async def test_after_a_failed_append_what_was_decided_upon_it_is_decided_again(
    library: Library, error: EventStoreError
) -> None:
    shelf, store = library.held()
    seen: list[Notes] = []

    def second(book: Book) -> Notes:
        seen.append(book.state)
        return book.note("two")

    one = asyncio.create_task(shelf.record(ANA, note("one")))
    await before_the_gate(store)
    store.fail_next = error
    two = asyncio.create_task(shelf.record(ANA, second))
    looking = asyncio.create_task(shelf.record(ANA, look))
    await other_tasks()
    store.gate.open()
    with pytest.raises(type(error)):
        await one
    assert await two == ("two",)
    assert seen == [("one",), ()]
    assert await looking in {("two",), ()}
    assert library.texts() == ("two",)
    assert await shelf.record(ANA, look) == ("two",)


async def test_a_duplicate_of_what_is_still_on_its_way_is_refused_when_that_is_durable(
    library: Library,
) -> None:
    shelf, store = library.held()
    first = asyncio.create_task(shelf.record(ANA, note("one", "id-1")))
    await before_the_gate(store)
    again = asyncio.create_task(shelf.record(ANA, note("one", "id-1")))
    after = asyncio.create_task(shelf.record(ANA, note("two")))
    await other_tasks()
    assert not again.done()
    store.gate.open()
    await first
    with pytest.raises(DuplicateKey):
        await again
    assert await after == ("one", "two")
    assert library.texts() == ("one", "two")


async def test_if_the_first_fails_its_duplicate_takes_its_place(library: Library) -> None:
    shelf, store = library.held()
    first = asyncio.create_task(shelf.record(ANA, note("one", "id-1")))
    await before_the_gate(store)
    store.fail_next = LogUnavailable("no disk")
    again = asyncio.create_task(shelf.record(ANA, note("one", "id-1")))
    await other_tasks()
    store.gate.open()
    with pytest.raises(LogUnavailable):
        await first
    assert await again == ("one",)


async def test_a_key_that_must_be_absent_refuses_the_append(library: Library) -> None:
    shelf = library.shelf()
    await shelf.record(ANA, note("one", "id-1"))
    with pytest.raises(DuplicateKey):
        await shelf.record(ANA, note("echo"), absent=(key("id-1"),))
    assert await shelf.record(ANA, look) == library.texts() == ("one",)


async def test_a_command_that_fails_changes_nothing(library: Library) -> None:
    shelf = library.shelf()
    await shelf.record(ANA, note("one"))

    def fails(book: Book) -> None:
        book.note("never")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await shelf.record(ANA, fails)
    assert await shelf.record(ANA, note("two")) == library.texts() == ("one", "two")


async def test_a_full_queue_refuses_and_changes_nothing(library: Library) -> None:
    shelf, store = library.held(capacity=1)
    one = asyncio.create_task(shelf.record(ANA, note("one")))
    await before_the_gate(store)
    with pytest.raises(QueueFull):
        await shelf.record(ANA, note("two"))
    store.gate.open()
    await one
    assert await shelf.record(ANA, note("three")) == library.texts() == ("one", "three")


# -- callers that go away --------------------------------------------------------------------------


async def test_a_caller_that_goes_away_takes_nobody_along(
    library: Library, told: list[Notes]
) -> None:
    shelf, store = library.held()
    shelf.on_commit = lambda _, state, _version: told.append(state)
    gone = asyncio.create_task(shelf.record(ANA, note("one")))
    await before_the_gate(store)
    waits = asyncio.create_task(shelf.record(ANA, look))
    follows = asyncio.create_task(shelf.record(ANA, note("two")))
    await other_tasks()
    gone.cancel()
    await other_tasks()
    assert not waits.done()
    store.gate.open()
    assert await waits == ("one",)
    assert await follows == ("one", "two")
    assert gone.cancelled()
    assert await shelf.record(ANA, note("three")) == ("one", "two", "three")
    assert library.texts() == ("one", "two", "three")
    assert all(state[:1] == ("one",) for state in told), "nobody hears of a state that never was"


async def test_what_outlives_its_caller_is_not_missing_from_memory(library: Library) -> None:
    shelf, store = library.held()
    gone = asyncio.create_task(shelf.record(ANA, note("one")))
    await before_the_gate(store)
    follows = asyncio.create_task(shelf.record(ANA, note("two")))
    await other_tasks()
    gone.cancel()
    await other_tasks()
    assert (await shelf.look(ANA)).state == (), "read while both were on their way"
    store.gate.open()
    assert await follows == ("one", "two")
    assert (await shelf.look(ANA)).state == ("one", "two")


# -- other processes -------------------------------------------------------------------------------


async def test_what_another_process_appended_is_seen_and_decided_upon(
    library: Library, told: list[Notes]
) -> None:
    ours, theirs = library.shelf(), library.shelf()
    ours.on_commit = lambda _, state, _version: told.append(state)
    await ours.record(ANA, note("ours"))
    await theirs.record(ANA, note("theirs"))
    seen: list[Notes] = []

    def last(book: Book) -> Notes:
        seen.append(book.state)
        return book.note("last")

    assert await ours.record(ANA, last) == ("ours", "theirs", "last")
    assert seen == [("ours",), ("ours", "theirs")]
    assert told == [("ours",), ("ours", "theirs"), ("ours", "theirs", "last")]


async def test_a_decision_against_it_after_a_conflict_is_told_all_the_same(
    library: Library, told: list[Notes]
) -> None:
    ours, theirs = library.shelf(), library.shelf()
    await ours.record(ANA, look)
    await theirs.record(ANA, note("theirs"))
    ours.on_commit = lambda _, state, _version: told.append(state)
    answer = await ours.record(ANA, lambda book: book.state or book.note("first"))
    assert answer == ("theirs",)
    assert told == [("theirs",)]


async def test_refreshing_sees_what_others_appended(library: Library) -> None:
    ours, theirs = library.shelf(), library.shelf()
    await ours.record(ANA, look)
    await theirs.record(ANA, note("theirs"))
    assert (await ours.look(ANA)).state == ()
    await ours.refresh(ANA)
    book = ours.peek(ANA)
    assert book is not None
    assert (book.state, book.version) == (("theirs",), 1)


@pytest.mark.parametrize("seed", range(3))
async def test_many_callers_in_two_processes_agree_with_a_replay(
    library: Library, seed: int
) -> None:
    rng = random.Random(seed)
    shelves = [library.shelf(), library.shelf()]
    streams = [ANA, BEN]

    async def caller(number: int) -> None:
        for step in range(6):
            shelf, stream = rng.choice(shelves), rng.choice(streams)
            text = f"{number}.{step}"
            how = rng.choice([shelf.record, shelf.decide])
            assert text in await how(stream, note(text))
            assert text in await shelf.decide(stream, look)

    callers = [asyncio.create_task(caller(number)) for number in range(12)]
    for task in rng.sample(callers, 2):
        asyncio.get_running_loop().call_later(0.002, task.cancel)
    await asyncio.gather(*callers, return_exceptions=True)
    assert not [t for t in callers if not t.cancelled() and t.exception()]
    for shelf in shelves:
        for stream in streams:
            await shelf.refresh(stream)
            assert await shelf.record(stream, look) == library.texts(stream)
    assert len(set(library.texts(ANA) + library.texts(BEN))) >= 60


async def test_after_a_restore_everything_is_read_again(library: Library) -> None:
    shelf = library.shelf()
    await shelf.record(ANA, note("one"))
    library.factory.start_epoch()
    assert await shelf.record(ANA, note("two")) == library.texts() == ("one", "two")


# -- memory and snapshots --------------------------------------------------------------------------


async def test_who_was_used_last_stays_in_memory(library: Library) -> None:
    shelf = library.shelf(capacity=2)
    a, b, c = (StreamName(f"user/{name}") for name in "abc")
    for stream in (a, b, a, c):
        await shelf.record(stream, note("x"))
    assert shelf.peek(b) is None
    assert shelf.peek(a) is not None
    assert len(shelf) == 2
    assert await shelf.record(b, look) == ("x",)


async def test_who_is_on_the_way_to_the_disk_is_not_forgotten(library: Library) -> None:
    store = HeldCommits(library.log)
    writer = store.writer()
    shelf = library.shelf(library.log, writer, capacity=1)
    one = asyncio.create_task(shelf.record(ANA, note("one")))
    await before_the_gate(store)
    assert (await shelf.look(BEN)).state == ()
    assert shelf.peek(ANA) is not None
    store.gate.open()
    await one
    writer.close()


def long_life(log: LogStore, events: int) -> None:
    """Give somebody a long history."""
    epoch = log.head().epoch
    for start in range(0, events, 1000):
        new = tuple(BOOKS.codec.encode(Noted(text=str(n))) for n in range(start, start + 1000))
        answers = log.append_batch([Append(ANA, Version(start), new, epoch, new_append_id())])
        assert not isinstance(answers[0], EventStoreError)


async def test_a_user_with_50000_events_costs_what_the_last_few_cost(library: Library) -> None:
    long_life(library.log, 50_000)
    first = library.shelf()
    await first.record(ANA, note("50000"))
    await first.close()
    await first.record(ANA, note("50001"))
    log = library.counting()
    assert await library.shelf(log).decide(ANA, look) == ("49998", "49999", "50000", "50001")
    assert log.read_events == 1


async def test_a_snapshot_of_another_shape_or_epoch_is_not_believed(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = library.shelf(snapshot_every=2)
    for text in "abcd":
        await shelf.record(ANA, note(text))
    await shelf.close()
    assert library.log.snapshot(ANA) is not None
    monkeypatch.setattr(Books, "shape", b"a newer release.")
    log = library.counting()
    assert (await library.shelf(log).look(ANA)).state == ("a", "b", "c", "d")
    assert log.read_events == 4


async def test_what_a_newer_release_wrote_makes_its_stream_read_only(library: Library) -> None:
    shelf = library.shelf(snapshot_every=1)
    await shelf.record(ANA, note("one"))
    await shelf.close()
    newer = Append(ANA, Version(1), (NewEvent("Sung", b"\x80"),), Epoch(1), new_append_id())
    assert not isinstance(library.log.append_batch([newer])[0], EventStoreError)
    book = await library.shelf().look(ANA)
    assert (book.read_only, book.version, book.state) == (True, 2, ("one",))
    await shelf.refresh(ANA)
    assert await shelf.record(ANA, lambda book: book.read_only)
    assert await shelf.record(ANA, note("a fact")) == ("one", "a fact")
    await shelf.close()
    kept = library.log.snapshot(ANA)
    assert kept is not None
    assert kept.version == 1, "no snapshot hides what was not understood"


async def test_what_was_not_used_for_a_day_leaves_memory_and_is_there_when_asked_for(
    library: Library,
) -> None:
    shelf = library.shelf()
    await shelf.record(ANA, note("one"))
    await shelf.record(BEN, note("two"))
    for _ in range(LIFETIME):
        shelf.grow_older()
    assert len(shelf) == 2
    await shelf.record(BEN, note("three"))
    shelf.grow_older()
    figures = shelf.figures()
    assert (figures.size, figures.expirations, figures.evictions) == (1, 1, 0)
    assert (await shelf.look(ANA)).state == ("one",)
