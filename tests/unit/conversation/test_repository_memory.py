"""Aggregates in memory: who stays there, and how those who left it come back."""

from __future__ import annotations

import asyncio

import pytest

from app.conversation.cells import LIFETIME
from eventstore.errors import EventStoreError
from eventstore.types import Append, Epoch, NewEvent, StreamName, Version, new_append_id
from tests.conformance.held import HeldCommits
from tests.unit.conversation.library import (
    ANA,
    BEN,
    Books,
    Library,
    before_the_gate,
    long_life,
    look,
    note,
)


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
