"""What a keyring shows to whoever gets hold of its store or of what was made with it."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.errors import KeyEncryptionKeyError, KeyringError
from eventstore.keyring import KeyEncryptionKey, Keyring
from tests.unit.eventstore.key_stores import Place
from tests.unit.eventstore.keyrings import LID, OTHER, PHONE, FakeClock

# --- secrecy -------------------------------------------------------------------------------------


def test_nobody_can_enumerate_people_from_the_store(
    tmp_path: Path, place: Place, keyring: Keyring
) -> None:
    (person,) = keyring.register([(PHONE, LID)])
    raw = place.raw()
    assert person.encode() in raw  # what is looked for could be found
    for handle in (PHONE, LID):
        for plain in (handle.value, handle.value.removesuffix("@lid")):
            assert plain.encode() not in raw
            assert plain.encode("utf-16-le") not in raw
            assert base64.b64encode(plain.encode())[:12] not in raw
    assert (tmp_path / "kek").read_bytes() not in raw


def test_two_keyrings_hash_one_phone_differently(tmp_path: Path, clock: FakeClock) -> None:
    hashes = set()
    for name in ("one", "two"):
        kek = KeyEncryptionKey.from_bytes(bytes(32))
        keyring = Keyring.open(tmp_path / name, kek, clock=clock)
        keyring.register([(PHONE,)])
        keyring.close()
        rows = sqlite3.connect(tmp_path / name)
        hashes.add(rows.execute("SELECT handle_hmac FROM identities").fetchone())
        rows.close()
    assert len(hashes) == 2


def test_whoever_holds_the_key_can_resolve_a_pseudonym(keyring: Keyring, another: Keyring) -> None:
    (person,) = keyring.register([(PHONE, LID)])
    assert set(another.handles_of(person)) == {PHONE, LID}
    assert another.handles_of("nobody") == ()


def test_printing_a_handle_does_not_show_it() -> None:
    assert PHONE.value not in repr(PHONE)
    assert PHONE.value not in f"{(PHONE,)}"


def test_rows_swapped_between_persons_are_refused(place: Place, keyring: Keyring) -> None:
    one, two = keyring.register([(PHONE,), (OTHER,)])
    generation = keyring.generation()
    place.execute(
        "UPDATE keys SET wrapped = (SELECT wrapped FROM keys WHERE owner = ?) WHERE owner = ?",
        two,
        one,
    )
    place.execute(
        "UPDATE identities SET box = (SELECT box FROM identities WHERE pseudonym = ?)"
        " WHERE pseudonym = ?",
        two,
        one,
    )
    keyring.evict(one)
    with pytest.raises(KeyEncryptionKeyError, match="was not wrapped by this"):
        keyring.key_for(one, generation)
    with pytest.raises(KeyringError, match="damaged"):
        keyring.handles_of(one)


# --- fingerprints --------------------------------------------------------------------------------


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_fingerprints_agree_only_where_every_part_does(
    fingerprints: Keyring, one: list[str], two: list[str]
) -> None:
    first = fingerprints.fingerprint(*one)
    assert len(first) == 16
    assert (first == fingerprints.fingerprint(*two)) == (one == two)


@pytest.fixture(scope="module")
def fingerprints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyring]:
    path = tmp_path_factory.mktemp("fingerprints") / "keys.db"
    keyring = Keyring.open(path, KeyEncryptionKey.from_bytes(bytes(32)), clock=FakeClock())
    yield keyring
    keyring.close()


def test_parts_shifted_over_their_boundary_have_another_fingerprint(keyring: Keyring) -> None:
    shifted = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc"), ("\ud800",), ()]
    assert len({keyring.fingerprint(*parts) for parts in shifted}) == len(shifted)


def test_a_fingerprint_survives_a_restart_and_is_this_keyring_s_own(
    tmp_path: Path, keyring: Keyring, another: Keyring, kek: KeyEncryptionKey, clock: FakeClock
) -> None:
    assert another.fingerprint("wamid") == keyring.fingerprint("wamid")
    elsewhere = Keyring.open(tmp_path / "elsewhere.db", kek, clock=clock)
    assert elsewhere.fingerprint("wamid") != keyring.fingerprint("wamid")
    elsewhere.close()
