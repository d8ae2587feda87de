"""The small types of the log: what an append is made of and what a reader gets.

Times are integer microseconds since the Unix epoch, UTC, by the *store's* clock.
Positions and versions start at 1; 0 means "before the first".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NewType

import msgspec

from eventstore.randomness import random_bytes

Position = NewType("Position", int)
"""Place of an event in the whole log: 1, 2, 3 … without gaps."""

Version = NewType("Version", int)
"""Place of an event in its stream: 1, 2, 3 … without gaps. 0: the stream is empty."""

Epoch = NewType("Epoch", int)
"""Counts the restores of a log. An append made in another epoch is refused."""

Micros = NewType("Micros", int)
"""An instant: microseconds since 1970-01-01T00:00:00Z."""

StreamName = NewType("StreamName", str)
"""`user/<pseudonym>`, `assistant`, `jobs/<name>`, …"""

AppendId = NewType("AppendId", bytes)
"""16 random bytes that name one append, for settling a COMMIT of unknown outcome."""

IdempotencyKey = NewType("IdempotencyKey", bytes)
"""16 bytes, unique in the log: an HMAC, never an id from outside in clear."""

PSEUDONYM: Final = "[a-z2-7]{20}"
"""What every pseudonym matches as a whole: 100 random bits in base32."""

Clock = Callable[[], Micros]
"""Tells the time. Passed in, so that tests can hold it."""

MAX_EVENTS_PER_APPEND = 1000
MAX_STATE_BYTES = 4 * 1024 * 1024


def new_append_id() -> AppendId:
    """Return 16 fresh random bytes."""
    return AppendId(random_bytes(16))


class NewEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event that is not in the log yet: stored type name, encoded state, optional key."""

    type: str
    state: bytes
    key: IdempotencyKey | None = None


class Append(msgspec.Struct, frozen=True, array_like=True):
    """The unit of writing: events of one stream that are committed together or not at all.

    `expected` is the stream's version as the caller knows it. If one of `absent`, or of the
    events' own keys, is in the log already the append fails with `DuplicateKey`.
    """

    stream: StreamName
    expected: Version
    events: tuple[NewEvent, ...]
    epoch: Epoch
    append_id: AppendId
    absent: tuple[IdempotencyKey, ...] = ()


class Appended(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The answer to an append, given only when it is durable."""

    epoch: Epoch
    first_position: Position
    last_position: Position
    version: Version
    recorded_at: Micros


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """One event as the log holds it. `state` is still encoded (see `eventstore.codec`)."""

    position: Position
    stream: StreamName
    version: Version
    type: str
    recorded_at: Micros
    key: IdempotencyKey | None
    append_id: AppendId
    state: bytes


class Head(msgspec.Struct, frozen=True, gc=False):
    """Where the log ends: its epoch, last position, and the time of the last append."""

    epoch: Epoch
    position: Position
    recorded_at: Micros


class Cursor(msgspec.Struct, frozen=True, gc=False):
    """A reader's place: compared, hash included, with the log at every reconnect."""

    epoch: Epoch
    position: Position
    leaf: bytes
    """Leaf hash of the event at `position`; empty at position 0."""


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """A stream's state at a version; valid only in its epoch and for its shape."""

    stream: StreamName
    version: Version
    epoch: Epoch
    shape: bytes
    state: bytes
