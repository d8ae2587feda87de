"""What the keyring promises: who is who, durable keys, nothing to enumerate, a final end."""

from __future__ import annotations

import base64
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.errors import (
    Forgotten,
    KeyEncryptionKeyError,
    KeyExpired,
    KeyMissing,
    KeyringError,
    LogUnavailable,
)
from eventstore.keyring import (
    BOT,
    Handle,
    KeyEncryptionKey,
    Keyring,
    generation_of,
)
from eventstore.keyring_memory import BELIEVED, MARGIN
from eventstore.sealing import Sealer
from eventstore.types import Micros, StreamName
from tests.unit.eventstore.key_stores import OPEN, Place

PHONE = Handle("phone", "34612345678")
LID = Handle("lid", "98765432101234@lid")
OTHER = Handle("phone", "34699999999")

ROOT = Path(__file__).parents[3]
NOVEMBER = Micros(1_795_000_000_000_000)  # 2026-11-18
ONE_QUARTER = 92 * 86_400_000_000

REGISTER_AND_WAIT = (
    OPEN
    + """
import sys, time
from eventstore.keyring import Handle, KeyEncryptionKey, Keyring

folder, place, now, start, *values = sys.argv[1:]
kek = KeyEncryptionKey.from_file(Path(folder) / "kek")
while time.time() < float(start):
    pass
keyring = Keyring(open_store(place), kek, clock=lambda: int(now))
(pseudonym,) = keyring.register([tuple(Handle(*value.split("=")) for value in values)])
box = keyring.key_for(pseudonym, keyring.generation()).encrypt(bytes(12), b"hello", None)
print(pseudonym, box.hex(), flush=True)
sys.stdin.read()
"""
)


class FakeClock:
    def __init__(self) -> None:
        self.now = NOVEMBER

    def __call__(self) -> Micros:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def tombstones() -> set[str]:
    return set()


@pytest.fixture
def kek(tmp_path: Path) -> KeyEncryptionKey:
    return KeyEncryptionKey.from_file(tmp_path / "kek")


@pytest.fixture
def ticks() -> FakeClock:
    """A monotonic clock."""
    return FakeClock()


@pytest.fixture
def keyring(
    place: Place, kek: KeyEncryptionKey, clock: FakeClock, ticks: FakeClock, tombstones: set[str]
) -> Iterator[Keyring]:
    keyring = Keyring(
        place.open(), kek, clock=clock, is_forgotten=tombstones.__contains__, monotonic=ticks
    )
    yield keyring
    keyring.close()


@pytest.fixture
def another(
    place: Place, keyring: Keyring, kek: KeyEncryptionKey, clock: FakeClock
) -> Iterator[Keyring]:
    """The same keyring, as another process opens it."""
    another = Keyring(place.open(), kek, clock=clock)
    yield another
    another.close()


def start_child(
    folder: Path, place: Place, *handles: Handle, start: float = 0.0
) -> subprocess.Popen[str]:
    values = [f"{handle.kind}={handle.value}" for handle in handles]
    arguments = [str(folder), place.place, str(NOVEMBER), str(start), *values]
    return subprocess.Popen(
        [sys.executable, "-c", REGISTER_AND_WAIT, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def micros(date: str) -> Micros:
    return Micros(int(datetime.fromisoformat(date + "Z").timestamp()) * 1_000_000)


def answer_of(child: subprocess.Popen[str]) -> tuple[str, str]:
    assert child.stdout is not None
    pseudonym, box = child.stdout.readline().split()
    return pseudonym, box


# --- who is who ----------------------------------------------------------------------------------


def test_a_pseudonym_is_twenty_random_letters_and_digits(keyring: Keyring) -> None:
    one, two = keyring.register([(PHONE,), (OTHER,)])
    assert one != two
    assert len(one) == len(two) == 20
    assert set(one + two) <= set("abcdefghijklmnopqrstuvwxyz234567")


@pytest.mark.parametrize(("first", "second"), [(PHONE, LID), (LID, PHONE)])
def test_phone_and_lid_of_one_person_lead_to_one_pseudonym_in_either_order(
    keyring: Keyring, another: Keyring, first: Handle, second: Handle
) -> None:
    (known,) = keyring.register([(first,)])
    assert keyring.cached((first, second)) is None  # so that the caller registers, which links
    assert keyring.register([(first, second)]) == [known]
    assert keyring.cached((second, first)) == known
    assert another.find((second,)) == known
    assert keyring.clashes == 0


def test_persons_and_handles_met_twice_in_one_batch_are_one_person(keyring: Keyring) -> None:
    one, two, three, other = keyring.register([(LID,), (PHONE, LID), (PHONE,), (OTHER,)])
    assert one == two == three != other


@pytest.mark.parametrize("handles", [(PHONE, LID), (LID, PHONE)])
def test_a_phone_and_a_lid_of_two_persons_stay_two_and_are_counted(
    keyring: Keyring, handles: tuple[Handle, ...]
) -> None:
    by_phone, by_lid = keyring.register([(PHONE,), (LID,)])
    assert keyring.register([handles]) == [by_phone]
    assert keyring.clashes == 1
    assert keyring.find((LID,)) == by_lid
    assert keyring.cached(handles) == keyring.find(handles) == by_phone


def test_the_hot_path_knows_a_person_without_touching_the_file(keyring: Keyring) -> None:
    (person,) = keyring.register([(PHONE, LID)])
    keyring.close()
    assert keyring.cached((PHONE, LID)) == person
    assert keyring.has_current_key(person)
    assert keyring.key_for(person, keyring.generation()) is not None


def test_someone_unknown_is_not_found_and_a_person_without_handles_is_refused(
    keyring: Keyring,
) -> None:
    assert keyring.cached((PHONE,)) is None
    assert keyring.find((PHONE, LID)) is None
    with pytest.raises(ValueError, match="without any handle"):
        keyring.register([(PHONE,), ()])
    assert keyring.find((PHONE,)) is None


def test_memory_is_bounded_and_what_it_dropped_is_found_again(
    place: Place, kek: KeyEncryptionKey, clock: FakeClock
) -> None:
    keyring = Keyring(place.open(), kek, clock=clock, identities=2, keys=2)
    handles = [(Handle("phone", str(n)),) for n in range(5)]
    persons = keyring.register(handles)
    assert [keyring.cached(each) for each in handles] == [None] * 3 + persons[3:]
    assert [keyring.find(each) for each in handles] == persons
    assert not keyring.has_current_key(persons[0])
    assert keyring.key_for(persons[0], keyring.generation()) is not None
    keyring.close()


def test_a_handle_registered_by_another_process_is_found(
    keyring: Keyring, another: Keyring
) -> None:
    (person,) = another.register([(PHONE, LID)])
    assert keyring.cached((LID,)) is None
    assert keyring.find((LID,)) == person
    assert keyring.register([(PHONE,)]) == [person]


def test_processes_that_meet_someone_at_once_agree_who_it_is(tmp_path: Path, place: Place) -> None:
    KeyEncryptionKey.from_file(tmp_path / "kek")
    start = time.time() + 1.0  # all create the tables, the secrets, the person and the key
    children = [start_child(tmp_path, place, PHONE, LID, start=start) for _ in range(3)]
    answers = {answer_of(child) for child in children}
    for child in children:
        child.communicate("")
    assert len(answers) == 1


def test_many_threads_that_meet_the_same_people_at_once_agree(keyring: Keyring) -> None:
    people = [(Handle("phone", str(n)), Handle("lid", str(n))) for n in range(50)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: keyring.register(people), range(16)))
    assert all(answer == answers[0] for answer in answers)


# --- keys ----------------------------------------------------------------------------------------


def test_a_key_is_durable_before_it_is_used(tmp_path: Path, place: Place, keyring: Keyring) -> None:
    child = start_child(tmp_path, place, PHONE, LID)
    pseudonym, box = answer_of(child)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert keyring.find((LID,)) == pseudonym
    key = keyring.key_for(pseudonym, keyring.generation())
    assert key.decrypt(bytes(12), bytes.fromhex(box), None) == b"hello"


def test_a_new_quarter_needs_a_new_key_and_the_old_one_still_opens(
    keyring: Keyring, another: Keyring, clock: FakeClock
) -> None:
    (person,) = keyring.register([(PHONE,)])
    old = keyring.generation()
    clock.now = Micros(NOVEMBER + ONE_QUARTER)
    new = keyring.generation()
    assert new == old + 1
    assert not keyring.has_current_key(person)
    with pytest.raises(KeyMissing):
        keyring.key_for(person, new)
    keyring.ensure_keys([person, person, BOT])
    assert keyring.has_current_key(person)
    box = keyring.key_for(person, new).encrypt(bytes(12), b"", None)
    assert another.key_for(person, new).decrypt(bytes(12), box, None) == b""
    assert another.key_for(person, old) is not None
    assert another.key_for(BOT, keyring.generation(BOT)) is not None


def test_registering_a_known_person_gives_them_the_key_of_the_quarter(
    keyring: Keyring, clock: FakeClock
) -> None:
    (person,) = keyring.register([(PHONE,)])
    clock.now = Micros(NOVEMBER + ONE_QUARTER)
    keyring.register([(PHONE,)])
    assert keyring.has_current_key(person)


@pytest.mark.parametrize(
    ("date", "quarter", "month"),
    [
        ("2026-01-01T00:00:00", 2026 * 4, 2026 * 12),
        ("2026-03-31T23:59:59", 2026 * 4, 2026 * 12 + 2),
        ("2026-04-01T00:00:00", 2026 * 4 + 1, 2026 * 12 + 3),
        ("2026-12-31T23:59:59", 2026 * 4 + 3, 2026 * 12 + 11),
        ("2027-01-01T00:00:00", 2027 * 4, 2027 * 12),
    ],
)
def test_a_person_s_key_lasts_a_quarter_and_the_bot_s_a_month(
    keyring: Keyring, clock: FakeClock, date: str, quarter: int, month: int
) -> None:
    clock.now = micros(date)
    assert generation_of("somebody", clock.now) == keyring.generation() == quarter
    assert generation_of(BOT, clock.now) == keyring.generation(BOT) == month


def test_a_key_that_merely_fell_out_of_memory_does_not_wait_for_a_writer(
    place: Place, kek: KeyEncryptionKey, clock: FakeClock
) -> None:
    keyring = Keyring(place.open(patient=False), kek, clock=clock, keys=1)
    one, two = keyring.register([(PHONE,), (OTHER,)])
    with place.writing():  # as another process does while it registers people
        for owner in (one, two):  # memory holds one key: that of whom was asked for last
            assert not keyring.has_current_key(owner)
            assert keyring.current_key(owner)[0] == keyring.generation()
            assert keyring.has_current_key(owner)
        with pytest.raises(LogUnavailable, match="lock"):
            keyring.current_key(BOT)  # there is no such key yet: it has to be written
    assert keyring.current_key(BOT)[0] == keyring.generation(BOT)
    keyring.close()


def test_no_key_is_made_for_somebody_to_whom_nothing_leads(keyring: Keyring) -> None:
    with pytest.raises(KeyMissing):
        keyring.ensure_keys(["a2345a2345a2345a2345"])
    with pytest.raises(KeyMissing):
        keyring.key_for("a2345a2345a2345a2345", keyring.generation())


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


# --- opening -------------------------------------------------------------------------------------


def test_a_wrong_key_encryption_key_is_refused_when_the_keyring_is_opened(
    tmp_path: Path, place: Place, keyring: Keyring, clock: FakeClock
) -> None:
    wrong = KeyEncryptionKey.from_file(tmp_path / "made anew")
    store = place.open()
    with pytest.raises(KeyEncryptionKeyError, match="did not make this keyring"):
        Keyring(store, wrong, clock=clock)
    store.close()


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("DELETE FROM secrets", "holds people but has lost its secrets"),
        ("DELETE FROM secrets WHERE name = 'handles'", "lost its secret 'handles'"),
        ("UPDATE secrets SET wrapped = substr(wrapped, 2)", "did not make this keyring"),
    ],
)
def test_a_damaged_keyring_is_refused_rather_than_begun_anew(
    place: Place,
    kek: KeyEncryptionKey,
    clock: FakeClock,
    damage: str,
    complaint: str,
) -> None:
    keyring = Keyring(place.open(), kek, clock=clock)
    keyring.register([(PHONE,)])
    keyring.close()
    place.execute(damage)
    store = place.open()
    with pytest.raises(KeyringError, match=complaint):
        Keyring(store, kek, clock=clock)
    store.close()
