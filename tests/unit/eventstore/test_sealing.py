"""What sealing promises: opened only where it was sealed, and provable without a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.errors import CannotUnseal, Forgotten, KeyMissing
from eventstore.keyring import BOT, Handle, KeyEncryptionKey, Keyring
from eventstore.sealing import Sealed, Sealer, verify_disclosure
from eventstore.types import Micros, StreamName

ONE_QUARTER = 92 * 86_400_000_000
TEXT = "¿Quedamos mañana a las 7?"


class Profile(msgspec.Struct, frozen=True):
    name: str
    languages: tuple[str, ...] = ()
    age: int | None = None


class World:
    """A keyring with two people in it, and a clock that tests can turn."""

    def __init__(self, path: Path) -> None:
        self.now = Micros(1_795_000_000_000_000)
        self.tombstones: set[str] = set()
        self.keyring = Keyring.open(
            path,
            KeyEncryptionKey.from_bytes(bytes(range(32))),
            clock=lambda: self.now,
            is_forgotten=self.tombstones.__contains__,
        )
        self.sealer = Sealer(self.keyring)
        self.ana, self.ben = self.keyring.register([(Handle("phone", n),) for n in ("1", "2")])
        self.stream = StreamName(f"user/{self.ana}")

    def seal(self, text: str = TEXT) -> Sealed[str]:
        return self.sealer.seal(self.ana, self.stream, "content", text)

    def open(self, sealed: Sealed[str]) -> str:
        return self.sealer.open(self.ana, self.stream, "content", sealed, str)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "keys.db")
    yield world
    world.keyring.close()


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world for all examples of a property."""
    world = World(tmp_path_factory.mktemp("lasting") / "keys.db")
    yield world
    world.keyring.close()


characters = st.characters(exclude_categories=["Cs"])
texts = st.text(characters)
profiles = st.builds(
    Profile,
    name=texts,
    languages=st.lists(texts).map(tuple),
    age=st.none() | st.integers(-(2**63), 2**64 - 1),
)


@given(profiles, texts, texts)
def test_what_is_sealed_opens_again(
    lasting: World, profile: Profile, stream: str, field: str
) -> None:
    name = StreamName(stream)
    sealed = lasting.sealer.seal(lasting.ana, name, field, profile)
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(sealed), type=Sealed[Profile])
    assert lasting.sealer.open(lasting.ana, name, field, stored, Profile) == profile


@given(texts, texts, texts, texts)
def test_a_text_opens_only_in_the_stream_and_field_it_was_sealed_in(
    lasting: World, stream: str, field: str, other_stream: str, other_field: str
) -> None:
    sealed = lasting.sealer.seal(lasting.ana, StreamName(stream), field, TEXT)
    shifted = [(stream + field, ""), ("", stream + field), (other_stream, other_field)]
    for name, place in shifted:
        if (name, place) == (stream, field):
            continue
        with pytest.raises(CannotUnseal):
            lasting.sealer.open(lasting.ana, StreamName(name), place, sealed, str)


@given(st.data())
def test_a_changed_bit_anywhere_is_refused(lasting: World, data: st.DataObject) -> None:
    sealed = lasting.seal()
    field = data.draw(st.sampled_from(["box", "digest"]))
    changed = bytearray(getattr(sealed, field))
    bit = data.draw(st.integers(0, len(changed) * 8 - 1))
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CannotUnseal):
        lasting.open(msgspec.structs.replace(sealed, **{field: bytes(changed)}))


def test_a_text_cut_short_is_refused(world: World) -> None:
    sealed = world.seal()
    for length in range(len(sealed.box)):
        with pytest.raises(CannotUnseal):
            world.open(msgspec.structs.replace(sealed, box=sealed.box[:length]))


def test_a_text_of_one_person_does_not_open_for_another(world: World) -> None:
    with pytest.raises(CannotUnseal):
        world.sealer.open(world.ben, world.stream, "content", world.seal(), str)


def test_a_text_moved_to_another_generation_is_refused(world: World) -> None:
    before = world.seal()
    world.now = Micros(world.now + ONE_QUARTER)
    after = world.seal()
    assert after.generation == before.generation + 1
    with pytest.raises(CannotUnseal):
        world.open(msgspec.structs.replace(before, generation=after.generation))
    for forged in (-1, 0, 2**62, 2**64 - 1):
        with pytest.raises(KeyMissing):
            world.open(msgspec.structs.replace(before, generation=forged))
    assert world.open(before) == world.open(after) == TEXT


def test_the_first_text_of_a_quarter_is_sealed_with_a_key_that_is_durable_already(
    world: World, tmp_path: Path
) -> None:
    world.now = Micros(world.now + ONE_QUARTER)
    assert not world.keyring.has_current_key(world.ana)
    sealed = world.seal()
    other_process = World(tmp_path / "keys.db")
    assert other_process.ana == world.ana
    assert other_process.open(sealed) == TEXT
    other_process.keyring.close()


def test_the_bot_seals_without_being_registered(world: World) -> None:
    stream = StreamName("assistant")
    sealed = world.sealer.seal(BOT, stream, "body", b"\x00raw")
    assert world.sealer.open(BOT, stream, "body", sealed, bytes) == b"\x00raw"
    assert sealed.generation == world.keyring.generation(BOT)


def test_a_value_of_another_type_is_refused_and_not_quoted(world: World) -> None:
    sealed = world.seal()
    mistaken: Sealed[int] = Sealed(sealed.generation, sealed.box, sealed.digest)
    with pytest.raises(CannotUnseal) as refused:
        world.sealer.open(world.ana, world.stream, "content", mistaken, int)
    assert TEXT not in str(refused.value)
    assert refused.value.__cause__ is None


def test_nothing_is_sealed_or_opened_for_the_forgotten(world: World) -> None:
    sealed = world.seal()
    world.tombstones.add(world.ana)
    with pytest.raises(Forgotten):
        world.open(sealed)
    with pytest.raises(Forgotten):
        world.seal()


def test_nothing_opens_once_its_key_is_destroyed_and_none_is_made_in_its_place(
    world: World,
) -> None:
    sealed = world.seal()
    world.keyring.destroy(world.ana)
    with pytest.raises(KeyMissing):
        world.open(sealed)
    with pytest.raises(KeyMissing):
        world.seal()


def test_one_text_sealed_twice_looks_different_each_time(world: World) -> None:
    one, two = world.seal(), world.seal()
    assert one.box != two.box
    assert one.digest != two.digest  # the digest of a short text cannot be guessed


def test_printing_a_sealed_text_shows_ciphertext_only(world: World) -> None:
    assert "Quedamos" not in repr(world.seal())


def test_a_disclosed_text_is_proved_without_a_key(world: World) -> None:
    sealed = world.seal()
    salt, plaintext = world.sealer.disclose(world.ana, world.stream, "content", sealed)
    assert msgspec.msgpack.decode(plaintext) == TEXT
    assert verify_disclosure(sealed, salt, plaintext)
    lie = msgspec.msgpack.encode("Nunca lo dije")
    assert not verify_disclosure(sealed, salt, lie)
    assert not verify_disclosure(sealed, bytes(16), plaintext)
    assert not verify_disclosure(world.seal(), salt, plaintext)
    assert not verify_disclosure(sealed, salt + plaintext[:1], plaintext[1:])
    assert not verify_disclosure(sealed, salt[:-1], salt[-1:] + plaintext)
