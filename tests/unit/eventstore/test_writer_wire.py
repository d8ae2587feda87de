"""What travels between a server and the process that writes its log arrives as it was."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.errors import (
    AppendRejected,
    Conflict,
    DuplicateKey,
    EpochMismatch,
    EventStoreError,
    HalfCopied,
    KeyMissing,
    LogUnavailable,
    OutcomeUnknown,
)
from eventstore.frames import Frames, frame
from eventstore.store import Beat
from eventstore.types import (
    Append,
    Appended,
    AppendId,
    Epoch,
    IdempotencyKey,
    Micros,
    NewEvent,
    Position,
    Snapshot,
    StreamName,
    Version,
)
from eventstore.writer_wire import Batch, Done, done, error_of

ANA = StreamName("user/ana")
APPENDED = Appended(Epoch(2), Position(7), Position(8), Version(3), Micros(1_800_000_000_000_001))
ERRORS = [
    Conflict(ANA, Version(3), Version(5)),
    DuplicateKey(bytes(range(240, 256))),
    EpochMismatch(Epoch(1), Epoch(2)),
    AppendRejected("an append without events"),
    LogUnavailable("no space: nothing was appended"),
    OutcomeUnknown("nobody knows"),
]


def travel(sent: Done) -> Done:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=Done)


def heard(error: EventStoreError) -> EventStoreError:
    """An error as the other process hears it."""
    return error_of(travel(done([error], None)).failures[0])


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_on_the_other_side(error: EventStoreError) -> None:
    arrived = heard(error)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


def test_an_error_without_a_name_on_the_wire_comes_as_what_it_is_a_kind_of() -> None:
    half, missing = HalfCopied("the cellar"), KeyMissing("ana", 3)
    assert (type(heard(half)), str(heard(half))) == (LogUnavailable, str(half))
    assert (type(heard(missing)), str(heard(missing))) == (OutcomeUnknown, str(missing))


def test_answers_keep_their_places() -> None:
    conflict, lost = ERRORS[0], ERRORS[4]
    arrived = travel(done([APPENDED, conflict, APPENDED, lost], lost))
    assert arrived.answers == [APPENDED, None, APPENDED, None]
    assert {place: type(error_of(f)) for place, f in arrived.failures.items()} == {
        1: Conflict,
        3: LogUnavailable,
    }
    assert arrived.lost is not None
    assert str(error_of(arrived.lost)) == str(lost)
    assert travel(done([], None)) == Done([], {}, None)


def test_requests_arrive_as_they_were_asked() -> None:
    key = IdempotencyKey(b"k" * 16)
    events = (NewEvent("Said", bytes(range(256)), key), NewEvent("Said", b""))
    append = Append(ANA, Version(1), events, Epoch(2), AppendId(b"i" * 16), (key,))
    snapshot = Snapshot(ANA, Version(1), Epoch(2), b"\x00shape", b"\xff")
    beat = Beat("node", "incarnation", "1.0", Micros(5), status=b"\x00\xff")
    batch = Batch([append], [snapshot], [beat])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(batch), type=Batch) == batch


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_messages_are_whole_wherever_what_was_read_is_cut(
    messages: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(frame(message) for message in messages)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
    frames = Frames()
    found: list[bytes] = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += frames.feed(stream[begin:end])
        complete = [m for m, until in _ends(messages) if until <= end]
        assert found == complete  # each as soon as its last byte is there
    assert found == messages


def _ends(messages: list[bytes]) -> list[tuple[bytes, int]]:
    """Each message, and where its frame ends."""
    ends, end = [], 0
    for message in messages:
        end += len(frame(message))
        ends.append((message, end))
    return ends


def test_a_byte_at_a_time_is_as_good_as_all_at_once() -> None:
    messages = [b"", b"x", b"y" * 300, b""]
    frames = Frames()
    stream = b"".join(frame(message) for message in messages)
    assert [m for n in range(len(stream)) for m in frames.feed(stream[n : n + 1])] == messages
    assert list(Frames().feed(stream)) == messages
