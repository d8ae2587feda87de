"""What the tests append: small, and told apart by the number in its state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from eventstore.errors import EventStoreError
from eventstore.store import LogReader, LogStore
from eventstore.types import (
    Append,
    Appended,
    Epoch,
    IdempotencyKey,
    NewEvent,
    Position,
    Recorded,
    StreamName,
    Version,
    new_append_id,
)

FIRST_EPOCH = Epoch(1)
ANA = StreamName("user/ana")
BEN = StreamName("user/ben")


def key(text: str) -> IdempotencyKey:
    """A key as the application makes them: 16 bytes that do not show what they stand for."""
    return IdempotencyKey(hashlib.sha256(text.encode()).digest()[:16])


def event(text: str = "", *, kind: str = "Said", keyed: str | None = None) -> NewEvent:
    """An event whose state is a text."""
    return NewEvent(kind, text.encode(), None if keyed is None else key(keyed))


def append(
    stream: str = ANA,
    expected: int = 0,
    *events: NewEvent,
    epoch: int = FIRST_EPOCH,
    absent: Iterable[str] = (),
) -> Append:
    """An append of the events, or of one event if none is given."""
    return Append(
        StreamName(stream),
        Version(expected),
        events or (event(),),
        Epoch(epoch),
        new_append_id(),
        tuple(key(text) for text in absent),
    )


def done(answer: Appended | EventStoreError | BaseException) -> Appended:
    """The answer, which must be a success."""
    assert isinstance(answer, Appended), answer
    return answer


def write(log: LogStore, *appends: Append) -> list[Appended]:
    """Append in one batch; all must go through."""
    return [done(answer) for answer in log.append_batch(appends)]


def grow(log: LogStore, sizes: Sequence[int], stream: str = ANA) -> list[Appended]:
    """Write one append of each size to one stream, each in a transaction of its own."""
    answers: list[Appended] = []
    for size in sizes:
        expected = log.stream_version(StreamName(stream))
        events = (event(f"{expected + i}") for i in range(size))
        answers += write(log, append(stream, expected, *events))
    return answers


def whole(log: LogReader) -> list[Recorded]:
    """Every event of the log, read in pages."""
    found: list[Recorded] = []
    while page := log.read(after=found[-1].position if found else Position(0), limit=5000):
        found += page
    return found


def check(events: Sequence[Recorded]) -> None:
    """What holds for any whole log: no gap anywhere, and one time, later than the last, an append.

    Versions must start at 1 and positions at 1; an append's events stand together.
    """
    assert [e.position for e in events] == list(range(1, len(events) + 1))
    heads: dict[StreamName, int] = {}
    seen: set[bytes] = set()
    last_id, last_time = b"", 0
    for e in events:
        assert e.version == heads.get(e.stream, 0) + 1, e
        heads[e.stream] = e.version
        if e.append_id == last_id:
            assert e.recorded_at == last_time, e
            continue
        assert e.append_id not in seen, e
        assert e.recorded_at > last_time, e
        seen.add(e.append_id)
        last_id, last_time = e.append_id, e.recorded_at
