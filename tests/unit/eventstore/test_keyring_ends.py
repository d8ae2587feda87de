"""How a key ends: with a person who is forgotten, or when it has expired."""

from __future__ import annotations

import pytest

from eventstore.errors import Forgotten, KeyExpired, KeyMissing, KeyringError
from eventstore.keyring import BOT, Handle, KeyEncryptionKey, Keyring
from eventstore.keyring_memory import BELIEVED, MARGIN
from eventstore.sealing import Sealer
from eventstore.types import Micros, StreamName
from tests.unit.eventstore.key_stores import Place
from tests.unit.eventstore.keyrings import (
    LID,
    NOVEMBER,
    ONE_QUARTER,
    OTHER,
    PHONE,
    FakeClock,
    micros,
)

# --- forgetting ----------------------------------------------------------------------------------


def test_a_key_gone_with_a_tombstone_is_forgotten_and_without_one_missing(
    keyring: Keyring, tombstones: set[str]
) -> None:
    (person,) = keyring.register([(PHONE, LID)])
    generation = keyring.generation()
    keyring.destroy(person)
    with pytest.raises(KeyMissing, match=r"restore keys\.db"):
        keyring.key_for(person, generation)
    tombstones.add(person)
    with pytest.raises(Forgotten):
        keyring.key_for(person, generation)
    with pytest.raises(Forgotten):
        keyring.ensure_keys([person])


def test_a_tombstone_counts_even_while_key_and_identity_are_still_in_memory(
    keyring: Keyring, tombstones: set[str]
) -> None:
    (person,) = keyring.register([(PHONE, LID)])
    tombstones.add(person)
    assert keyring.cached((PHONE,)) is None
    assert keyring.find((PHONE, LID)) is None
    for refused in (keyring.current_key, lambda owner: keyring.key_for(owner, 0)):
        with pytest.raises(Forgotten):
            refused(person)


def test_whoever_returns_after_being_forgotten_is_new_even_with_an_old_keyring_restored(
    keyring: Keyring, tombstones: set[str]
) -> None:
    (before,) = keyring.register([(PHONE, LID)])
    tombstones.add(before)  # the identity rows are still there, as after a restore
    (after,) = keyring.register([(PHONE, LID)])
    assert after != before
    assert keyring.clashes == 0
    keyring.destroy(before)
    assert keyring.find((LID,)) == after
    assert keyring.has_current_key(after)


def test_what_is_destroyed_is_gone_from_every_byte_of_the_tables(
    place: Place, keyring: Keyring, clock: FakeClock
) -> None:
    crowd = keyring.register([(Handle("phone", str(n)),) for n in range(400)])
    clock.now = Micros(NOVEMBER + ONE_QUARTER)
    keyring.ensure_keys(crowd)  # cells of the first quarter move between pages
    gone = crowd[::40]
    marks = ", ".join("?" * len(gone))
    secrets = place.execute(f"SELECT wrapped FROM keys WHERE owner IN ({marks})", *gone)
    secrets += place.execute(f"SELECT box FROM identities WHERE pseudonym IN ({marks})", *gone)
    assert len(secrets) == 3 * len(gone)
    for person in gone:
        keyring.destroy(person)
        keyring.destroy(person)  # a forgetting that is resumed repeats it
    raw = place.raw()
    assert not [secret for (secret,) in secrets if secret in raw]
    assert not [person for person in gone if person.encode() in raw]
    assert crowd[1].encode() in raw
    assert keyring.handles_of(gone[0]) == ()


def test_what_another_process_destroyed_is_not_believed_for_longer_than_a_minute(
    keyring: Keyring, another: Keyring, ticks: FakeClock
) -> None:
    one, two = keyring.register([(PHONE, LID), (OTHER,)])
    generation = keyring.generation()
    another.destroy(one)
    ticks.now = Micros(NOVEMBER + BELIEVED - MARGIN - 1)
    assert keyring.cached((PHONE,)) == one  # what memory says, without asking
    assert keyring.has_current_key(two)
    ticks.now = Micros(NOVEMBER + BELIEVED - 1)
    assert keyring.cached((PHONE,)) is None
    assert not keyring.has_current_key(two)
    assert keyring.current_key(two)  # whoever was told so before still does not wait
    ticks.now = Micros(NOVEMBER + BELIEVED)
    with pytest.raises(KeyMissing):
        keyring.key_for(one, generation)
    assert keyring.find((LID,)) is None
    assert keyring.find((OTHER,)) == two
    assert keyring.register([(PHONE, LID)]) != [one]


def test_memory_is_kept_when_nothing_was_destroyed(
    keyring: Keyring, another: Keyring, ticks: FakeClock
) -> None:
    one, two = keyring.register([(PHONE, LID), (OTHER,)])
    another.register([(Handle("phone", "1"),)])
    ticks.now = Micros(NOVEMBER + BELIEVED)
    assert keyring.cached((PHONE,)) is None
    assert keyring.current_key(one)  # asks once for all that is in memory
    keyring.close()
    assert keyring.cached((OTHER,)) == two
    assert keyring.has_current_key(two)


# --- expiring ------------------------------------------------------------------------------------


def test_the_bot_s_keys_expire_when_the_last_text_of_their_month_is_old_enough(
    keyring: Keyring, another: Keyring, clock: FakeClock
) -> None:
    sealer = Sealer(keyring)
    stream = StreamName("gateway")
    clock.now = micros("2026-08-15T00:00:00")
    august = sealer.seal(BOT, stream, "body", "hello")
    clock.now = micros("2026-09-01T00:00:00")
    september = sealer.seal(BOT, stream, "body", "hello")
    clock.now = micros("2026-11-29T23:59:59")  # 90 days after August, but for a second
    assert keyring.expire_bot_keys(90) == []
    clock.now = micros("2026-11-30T00:00:00")
    assert keyring.expire_bot_keys(90) == ["bot/2026-08"]
    assert keyring.expire_bot_keys(90) == []
    assert another.generations(BOT) == [september.generation]
    for either in (sealer, Sealer(another)):
        with pytest.raises(KeyExpired, match="as intended"):
            either.open(BOT, stream, "body", august, str)
        assert either.open(BOT, stream, "body", september, str) == "hello"


def test_an_expired_key_is_not_missing_not_forgotten_and_never_made_again(
    keyring: Keyring, clock: FakeClock
) -> None:
    (person,) = keyring.register([(PHONE,)])
    old = keyring.generation()
    clock.now = Micros(NOVEMBER + ONE_QUARTER)
    keyring.ensure_keys([person])
    assert keyring.expire(person, [old, old - 1]) == [old]
    with pytest.raises(KeyMissing):
        keyring.key_for(person, old - 1)
    clock.now = NOVEMBER  # a clock that was set back
    for refused in (keyring.current_key, lambda owner: keyring.ensure_keys([owner])):
        with pytest.raises(KeyExpired):
            refused(person)
    assert keyring.find((PHONE,)) == person
    assert keyring.generations(person) == [old + 1]


def test_a_person_forgotten_leaves_no_trace_of_expired_keys(place: Place, keyring: Keyring) -> None:
    (person,) = keyring.register([(PHONE,)])
    keyring.expire(person, [keyring.generation()])
    keyring.destroy(person)
    assert person.encode() not in place.raw()


def test_an_expired_key_is_gone_from_every_byte_of_the_tables(
    place: Place, kek: KeyEncryptionKey, clock: FakeClock
) -> None:
    keyring = Keyring(place.open(patient=False), kek, clock=clock)
    keyring.ensure_keys([BOT])
    ((wrapped,),) = place.execute("SELECT wrapped FROM keys WHERE owner = ?", BOT)
    assert wrapped in place.raw()
    with place.reading(), pytest.raises(KeyringError, match=r"being read|still open"):
        keyring.expire(BOT, keyring.generations(BOT))
    assert keyring.expire(BOT, []) == []  # repeated, as the error says
    assert wrapped not in place.raw()
    keyring.close()


def test_a_keyring_in_which_all_expired_still_counts_as_one(place: Place, keyring: Keyring) -> None:
    keyring.ensure_keys([BOT])
    keyring.expire(BOT, keyring.generations(BOT))
    store = place.open()
    assert store.holds_people()
    store.close()
