"""Aggregates in memory: durable before answered, decided again when an append failed."""

from __future__ import annotations

import asyncio

import pytest

from eventstore.errors import (
    AppendRejected,
    DuplicateKey,
    EventStoreError,
    LogUnavailable,
    QueueFull,
)
from eventstore.types import Append, Epoch, Version, new_append_id
from tests.conformance.appends import key
from tests.unit.conversation.library import (
    ANA,
    BOOKS,
    Book,
    Library,
    Noted,
    Notes,
    before_the_gate,
    look,
    note,
    noting_what_is_seen,
    other_tasks,
)

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
    deciding = asyncio.create_task(shelf.decide(ANA, noting_what_is_seen("decided", seen)))
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
    deciding = asyncio.create_task(shelf.decide(ANA, noting_what_is_seen("decided", seen)))
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
    shelf.on_commit = lambda _, state, *_where: told.append(state)
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
