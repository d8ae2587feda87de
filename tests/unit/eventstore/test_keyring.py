"""What the keyring promises: who is who, durable keys, nothing begun anew over something lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eventstore.errors import KeyEncryptionKeyError, KeyMissing, KeyringError, LogUnavailable
from eventstore.keyring import BOT, Handle, KeyEncryptionKey, Keyring, generation_of
from eventstore.types import Micros
from tests.unit.eventstore.key_stores import OPEN, Place
from tests.unit.eventstore.keyrings import (
    LID,
    NOVEMBER,
    ONE_QUARTER,
    OTHER,
    PHONE,
    FakeClock,
    micros,
)

ROOT = Path(__file__).parents[3]

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
