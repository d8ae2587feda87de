"""What a store of keys promises: whole transactions, one writer at a time, no downgrade."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from eventstore.errors import KeyringError, LogUnavailable
from eventstore.keystore import KeyStore
from eventstore.types import Micros
from tests.unit.eventstore.key_stores import Place


@pytest.fixture
def store(place: Place) -> Iterator[KeyStore]:
    store = place.open()
    yield store
    store.close()


def fill(store: KeyStore) -> None:
    store.put_identity(b"hash", "person", b"box")
    store.put_key("person", 1, b"wrapped", Micros(0))
    msg = "half way"
    raise ConnectionError(msg)


def test_a_transaction_that_fails_leaves_nothing_behind(store: KeyStore) -> None:
    with pytest.raises(ConnectionError), store.transaction():
        fill(store)
    assert not store.holds_people()
    with store.transaction():  # the lock is free again
        store.put_key("person", 1, b"wrapped", Micros(0))
    assert store.key("person", 1) == b"wrapped"


def test_what_a_transaction_reads_still_holds_when_it_writes(place: Place, store: KeyStore) -> None:
    found = []

    def other() -> None:
        theirs = place.open()
        with theirs.transaction():
            found.append(theirs.key("person", 1))
        theirs.close()

    with store.transaction():
        thread = threading.Thread(target=other)
        thread.start()
        assert store.key("person", 1) is None
        store.put_key("person", 1, b"wrapped", Micros(0))
    thread.join()
    assert found == [b"wrapped"]


def test_a_key_and_a_secret_are_never_replaced_and_an_identity_is(store: KeyStore) -> None:
    store.put_key("person", 1, b"wrapped", Micros(0))
    with pytest.raises(LogUnavailable):
        store.put_key("person", 1, b"other", Micros(0))
    store.put_secret("check", b"wrapped")
    with pytest.raises(LogUnavailable):
        store.put_secret("check", b"other")
    store.put_identity(b"hash", "person", b"box")
    store.put_identity(b"hash", "somebody new", b"other")
    assert store.key("person", 1) == b"wrapped"
    assert store.secrets() == {"check": b"wrapped"}
    assert store.pseudonym(b"hash") == "somebody new"
    assert store.boxes("somebody new") == [(b"hash", b"other")]
    assert store.boxes("person") == []


def test_every_destruction_is_counted_and_due_to_be_wiped_until_it_is(
    place: Place, store: KeyStore
) -> None:
    other = place.open()
    seen = {other.destructions()}
    for owner in ("person", "bot"):
        if owner == "bot":
            store.expire(owner, 1, Micros(0))
        else:
            store.erase(owner)
        assert other.wipe_due()
        seen.add(other.destructions())
        store.wipe()
        assert not other.wipe_due()
        assert other.destructions() in seen
    assert len(seen) == 3
    other.close()


def test_erased_rows_are_not_reported_as_wiped_while_somebody_may_still_see_them(
    place: Place, store: KeyStore
) -> None:
    impatient = place.open(patient=False)
    store.put_key("person", 1, b"a data key, wrapped", Micros(0))
    with place.reading():
        store.erase("person")
        with pytest.raises(KeyringError, match=r"being read|still open"):
            impatient.wipe()
        assert store.wipe_due()
    store.wipe()
    assert b"a data key, wrapped" not in place.raw()
    impatient.close()


def test_while_another_process_writes_the_keys_nothing_is_written_and_all_is_read(
    place: Place, store: KeyStore
) -> None:
    impatient = place.open(patient=False)
    with place.writing():
        with pytest.raises(LogUnavailable, match="lock"), impatient.transaction():
            pytest.fail("the lock was not taken")
        with pytest.raises(LogUnavailable, match="lock"):
            impatient.put_key("person", 1, b"wrapped", Micros(0))
        assert impatient.key("person", 1) is None
    impatient.put_key("person", 1, b"wrapped", Micros(0))
    impatient.close()


def test_a_closed_store_is_unavailable(store: KeyStore) -> None:
    store.close()
    store.close()
    with pytest.raises(LogUnavailable):
        store.secrets()
