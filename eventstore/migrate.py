"""Moving house: one log, copied from store to store as it is, to the last byte.

Positions, versions, times, append ids, keys, numbers and names of streams, epoch and head arrive
as they were; snapshots do not, they are made anew. The source is read only. The target is marked
as half copied from the first row on, so that nobody serves it, and remembers how far it is: after
a kill at any moment the next run goes on from the last committed page. Indexes and triggers come
last. Only when every leaf of the target has been compared does it become a log.

`migrate_sqlite` and `migrate_postgres` are the two stores' ends; `migrate_keys` moves the keyring.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import zip_longest
from typing import Any, Final, Protocol

import msgspec

from eventstore.errors import CopyDiffers, CopyFailed
from eventstore.integrity import leaf_hash
from eventstore.types import (
    AppendId,
    Head,
    IdempotencyKey,
    Micros,
    Position,
    Recorded,
    StreamName,
    Version,
)

Row = tuple[int, int, int, str, int, bytes | None, bytes, bytes]
"""position, number of the stream, version, type, recorded_at, key, append id, state"""
StreamRow = tuple[int, str, int]
"""number, name, version"""

PAGE: Final = 20_000
"""Events, or streams, that are committed together."""

Say = Callable[[str, int, int], None]
"""Told what is being done (`copying`, `indexing`, `verifying`), how much of it is, and of what."""


class Reached(msgspec.Struct, frozen=True):
    """How far a copy is."""

    stream: int
    """number of the last stream"""
    position: int
    complete: bool = False
    """It is a log already, and ends where the source does."""


class Moved(msgspec.Struct, frozen=True):
    """What was copied and verified."""

    head: Head
    streams: int
    keys: int
    resumed_at: int
    """Position that an earlier run had reached; 0 for the first."""


class Source(Protocol):
    """A log that nobody appends to now."""

    def head(self) -> Head:
        """Return where the log ends."""

    def streams(self, after: int) -> list[StreamRow]:
        """Return at most `PAGE` streams with a greater number, by number."""

    def events(self, after: int, up_to: int) -> list[Row]:
        """Return the events with `after < position <= up_to`, by position."""

    def close(self) -> None:
        """Let go of the log."""


class Asked(ABC):
    """The part of a `Source` that both stores are asked under the same names of their queries."""

    @abstractmethod
    def _ask(self, name: str, values: Sequence[object] = ()) -> list[Any]:
        """Return the rows of one query. Raises `LogUnavailable`."""

    def head(self) -> Head:
        """Return where the log ends."""
        return Head(*self._ask("select_head")[0])

    def streams(self, after: int) -> list[StreamRow]:
        """Return a page of streams."""
        return self._ask("select_streams", (after, PAGE))

    def events(self, after: int, up_to: int) -> list[Row]:
        """Return the events with `after < position <= up_to`."""
        return self._ask("select_events", (after, up_to))


class Target(Source, Protocol):
    """A log in the making."""

    def begin(self, head: Head) -> Reached:
        """Mark an empty log as half copied, or find the mark that an earlier run left.

        Raises `CopyFailed` if there is something else.
        """

    def add_streams(self, rows: list[StreamRow]) -> None:
        """Add streams, with their final versions; durable as a whole or not at all."""

    def add_events(self, rows: list[Row]) -> None:
        """Add events; durable as a whole or not at all."""

    def index(self, say: Say) -> None:
        """Build the indexes. May be repeated."""

    def complete(self, head: Head) -> None:
        """Put up the triggers and the head, and take the mark away: from now on it is a log."""


def move(source: Source, target: Target, say: Say, *, before_use: Callable[[], object]) -> Moved:
    """Copy a log, or the rest of it, and compare every leaf.

    `before_use` is called when all is copied and compared, before the target becomes a log: for
    the keys, which must be there first. Raises `CopyFailed` if the target holds something else or
    the source has been appended to, `CopyDiffers` if what arrived is not what was sent; the target
    is no log then.
    """
    head = source.head()
    reached = target.begin(head)
    names = _copy_streams(source, target, reached.stream)
    digests: list[bytes] = []
    keys = 0
    for after, up_to in _ranges(head):
        rows = source.events(after, up_to)
        if len(rows) != up_to - after:
            msg = f"the source lacks events between {after} and {up_to}: it is damaged"
            raise CopyFailed(msg)
        digests.append(digest(rows, names))
        keys += sum(row[5] is not None for row in rows)
        if reached.position < up_to:
            target.add_events(rows[max(0, reached.position - after) :])
        say("copying", up_to, head.position)
    target.index(say)
    _compare(source, target, head, digests, names, say)
    if source.head() != head:
        msg = "the source has been appended to: stop whoever serves it, and begin anew"
        raise CopyFailed(msg)
    before_use()
    if not reached.complete:
        target.complete(head)
    return Moved(head, len(names), keys, reached.position)


def _copy_streams(source: Source, target: Target, reached: int) -> Mapping[int, str]:
    names: dict[int, str] = {}
    last = 0
    while rows := source.streams(last):
        last = rows[-1][0]
        names.update((number, name) for number, name, _ in rows)
        if missing := [row for row in rows if row[0] > reached]:
            target.add_streams(missing)
    return names


def _compare(  # noqa: PLR0913, PLR0917 - the two logs, and what is known of the first
    source: Source,
    target: Target,
    head: Head,
    digests: list[bytes],
    names: Mapping[int, str],
    say: Say,
) -> None:
    for theirs, ours in zip_longest(_all_streams(source), _all_streams(target)):
        if theirs != ours:
            number, name, _ = theirs or ours or (0, "", 0)
            msg = f"stream {number}, {name}, is not what it was copied from: empty the target"
            raise CopyDiffers(msg)
    for (after, up_to), wanted in zip(_ranges(head), digests, strict=True):
        rows = target.events(after, up_to)
        if digest(rows, names) != wanted:
            position = _first_difference(source.events(after, up_to), rows)
            msg = f"the event at {position} is not what it was copied from: empty the target"
            raise CopyDiffers(msg)
        say("verifying", up_to, head.position)
    if target.events(head.position, head.position + PAGE):
        msg = f"the target goes on after {head.position}, where the source ends: empty it"
        raise CopyDiffers(msg)


def digest(rows: list[Row], names: Mapping[int, str]) -> bytes:
    """Return SHA-256 over the leaf hashes of some events, in their order."""
    leaves = sha256()
    for position, stream, version, kind, recorded_at, key, append_id, state in rows:
        event = Recorded(
            Position(position),
            StreamName(names.get(stream, "")),
            Version(version),
            kind,
            Micros(recorded_at),
            None if key is None else IdempotencyKey(key),
            AppendId(append_id),
            state,
        )
        leaves.update(leaf_hash(event))
    return leaves.digest()


def _ranges(head: Head) -> Iterator[tuple[int, int]]:
    for after in range(0, head.position, PAGE):
        yield after, min(after + PAGE, head.position)


def _all_streams(log: Source) -> Iterator[StreamRow]:
    last = 0
    while rows := log.streams(last):
        last = rows[-1][0]
        yield from rows


def _first_difference(wanted: list[Row], found: list[Row]) -> int:
    for row, other in zip_longest(wanted, found):
        if row != other:
            return (row or other or (0,))[0]
    return 0
