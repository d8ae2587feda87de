"""Events become bytes and come back, for ever; what cannot be read says why."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.codec import Codec, Event, correlation_mark, stored_name
from eventstore.errors import CorruptEvent, UnknownEventType
from eventstore.types import IdempotencyKey, NewEvent


class Greeted(Event, frozen=True):
    """The first schema, as an older release has it."""

    name: str = msgspec.field(name="n")


def split_name(state: dict[str, Any]) -> dict[str, Any]:
    """1 → 2: one name became two."""
    first, _, last = state.pop("n").partition(" ")
    return state | {"f": first, "l": last}


def count_times(state: dict[str, Any]) -> dict[str, Any]:
    """2 → 3: greetings are counted, unless of nobody."""
    return state | {"t": int(state["f"] != "")}


class GreetedAgain(Event, frozen=True):
    """The third schema of the same event."""

    type_name: ClassVar[str] = "Greeted"
    schema: ClassVar[int] = 3
    upcasters: ClassVar = {1: split_name, 2: count_times}

    first: str = msgspec.field(name="f")
    last: str = msgspec.field(name="l")
    times: int = msgspec.field(name="t")


class Parted(Event, frozen=True):
    """Another event, of nothing but optional fields."""

    words: tuple[str, ...] = msgspec.field(name="w", default=())


old, new = Codec([Greeted, Parted]), Codec([GreetedAgain, Parted])
GOLDEN = {
    # A map of short names; what has its default is left out.
    ("Greeted", "81a16ea3416e61"): Greeted(name="Ana"),
    (
        "Greeted",
        "84a16ea3416e61a26174cf0006651728988000a3636f72a172a363617507",
    ): Greeted(at=1_800_000_000_000_000, cor="r", cau=7, name="Ana"),
    ("Parted", "80"): Parted(),
    ("Parted", "81a17792a161a162"): Parted(words=("a", "b")),
}


@pytest.mark.parametrize(("stored", "event"), GOLDEN.items(), ids=repr)
def test_the_bytes_of_an_event_never_change(stored: tuple[str, str], event: Event) -> None:
    name, state = stored[0], bytes.fromhex(stored[1])
    assert old.encode(event) == NewEvent(name, state, None)
    assert old.decode(name, state) == event


def test_fields_are_found_by_name_whatever_their_order() -> None:
    state = msgspec.msgpack.encode({"t": 2, "l": "Lovelace", "at": 5, "f": "Ada"})
    assert new.decode("Greeted@3", state) == GreetedAgain(
        at=5, first="Ada", last="Lovelace", times=2
    )


def test_an_event_is_stored_under_its_own_name_and_schema() -> None:
    assert stored_name(Greeted) == "Greeted"
    assert stored_name(GreetedAgain) == "Greeted@3"
    assert stored_name(GreetedAgain, 1) == "Greeted"
    assert new.encode(GreetedAgain(first="a", last="b", times=1)).type == "Greeted@3"


def test_a_key_travels_beside_the_state() -> None:
    key = IdempotencyKey(b"k" * 16)
    plain = old.encode(Greeted(name="Ana"))
    assert old.encode(Greeted(name="Ana"), key) == NewEvent(plain.type, plain.state, key)


def test_bytes_of_an_older_schema_are_read_as_the_newest() -> None:
    first = old.encode(Greeted(at=5, name="Ada Lovelace"))
    assert new.decode(first.type, first.state) == GreetedAgain(
        at=5, first="Ada", last="Lovelace", times=1
    )
    second = msgspec.msgpack.encode({"f": "Ada", "l": "Lovelace"})
    assert new.decode("Greeted@2", second).times == 1  # type: ignore[attr-defined]


def test_a_node_of_an_older_release_says_that_it_does_not_know_a_newer_schema() -> None:
    newer = new.encode(GreetedAgain(first="Ada", last="Lovelace", times=1))
    with pytest.raises(UnknownEventType, match="Greeted@3") as unknown:
        old.decode(newer.type, newer.state)
    assert unknown.value.stored_type == "Greeted@3"


@pytest.mark.parametrize("name", ["", "Nobody", "greeted", "Greeted@1", "Greeted@4", "Greeted@"])
def test_a_type_that_nobody_registered_is_unknown(name: str) -> None:
    assert not new.knows(name)
    with pytest.raises(UnknownEventType):
        new.decode(name, b"\x80")


def test_every_name_of_a_type_can_be_asked_for_in_sql() -> None:
    assert new.stored_names([GreetedAgain, Parted]) == (
        "Greeted",
        "Greeted@2",
        "Greeted@3",
        "Parted",
    )
    assert all(new.knows(name) for name in new.stored_names(new.classes))
    assert new.classes == (GreetedAgain, Parted)


def test_a_field_that_an_older_node_does_not_know_is_passed_over() -> None:
    assert old.decode("Greeted", msgspec.msgpack.encode({"n": "Ana", "new": [1]})) == Greeted(
        name="Ana"
    )


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"\xc1",
        b"\x80",
        b"\x81\xa1n\xc0",
        b"\x81\xa1n\x01",
        b"\x81\xa1n\xa1\xff",
        b"\x91\xa3Ana",
        b"\x81\xa1n\xa3Ana!",
        b"\x81\xa1n\xdd\xff\xff\xff\xff",
        b"\x82\xa1n\xa1a\xa1x" + b"\x91" * 100_000,
    ],
    ids=[
        "nothing",
        "no-msgpack",
        "field-missing",
        "null",
        "another-type",
        "no-utf8",
        "positional",
        "something-behind",
        "longer-than-it-is",
        "too-deep",
    ],
)
@pytest.mark.parametrize("codec", [old, new], ids=["current", "upcast"])
def test_bytes_that_are_not_the_event_are_corrupt(codec: Codec, state: bytes) -> None:
    with pytest.raises(CorruptEvent, match="Greeted") as corrupt:
        codec.decode("Greeted", state)
    assert corrupt.value.stored_type == "Greeted"


@given(state=st.binary(max_size=40), name=st.sampled_from(["Greeted", "Greeted@2", "Greeted@3"]))
def test_any_bytes_are_an_event_or_corrupt(state: bytes, name: str) -> None:
    try:
        event = new.decode(name, state)
    except CorruptEvent:
        return
    assert isinstance(event, GreetedAgain)


json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)


@given(
    fields=st.dictionaries(st.sampled_from(["n", "f", "l", "t", "at", "cor", "cau"]), json),
    name=st.sampled_from(["Greeted", "Greeted@2", "Greeted@3"]),
)
def test_any_map_is_an_event_or_corrupt(fields: dict[str, Any], name: str) -> None:
    try:
        event = new.decode(name, msgspec.msgpack.encode(fields))
    except CorruptEvent:
        return
    assert isinstance(event, GreetedAgain)


@given(
    event=st.builds(
        GreetedAgain,
        first=st.text(),
        last=st.text(),
        times=st.integers(-(2**63), 2**63 - 1),
        at=st.none() | st.integers(0, 2**62),
        cor=st.none() | st.text(),
        cau=st.none() | st.integers(0, 2**31),
    ),
    cut=st.floats(0, 0.999),
)
def test_an_event_comes_back_as_it_was_and_a_cut_one_not_at_all(
    event: GreetedAgain, cut: float
) -> None:
    stored = new.encode(event)
    assert new.decode(stored.type, stored.state) == event
    with pytest.raises(CorruptEvent):
        new.decode(stored.type, stored.state[: int(len(stored.state) * cut)])


def test_two_classes_cannot_be_stored_under_one_name() -> None:
    with pytest.raises(ValueError, match="two event classes are stored as 'Greeted'"):
        Codec([Greeted, GreetedAgain])


def test_a_schema_without_its_upcaster_is_refused() -> None:
    class Forgetful(Event, frozen=True):
        schema: ClassVar[int] = 3
        upcasters: ClassVar = {1: count_times}

    with pytest.raises(ValueError, match="Forgetful has no upcaster for schema 2"):
        Codec([Forgetful])


def test_an_event_that_nobody_registered_cannot_be_encoded() -> None:
    with pytest.raises(KeyError):
        old.encode(GreetedAgain(first="a", last="b", times=1))


@given(st.text(max_size=70), st.integers() | st.none(), st.text())
def test_every_state_of_a_correlation_holds_its_mark(cor: str, cau: int | None, name: str) -> None:
    state = Codec([Greeted]).encode(Greeted(cor=cor, cau=cau and cau % 2**63, name=name)).state
    assert correlation_mark(cor) in state
