"""Who is who, and whose key opens what: pseudonyms and data keys, durable before they are used.

A person is known by handles (a phone number, a lid). Each handle leads, through a keyed hash, to
one random pseudonym; the pseudonym owns one data key per generation (a quarter of a year). Data
keys are kept wrapped by a key-encryption key that lives elsewhere. Whoever holds `keys.db` alone
can neither enumerate numbers nor open anything; whoever destroys a person's rows destroys what
was sealed for them, in every copy of the log.

`cached`, `has_current_key`, `generation` and `fingerprint` touch memory only and belong on the
hot path; everything else may wait for the store. Several processes may use one store: what one
makes the others find, what one destroys the others lose within a minute (`keyring_memory`), or at
once where they are told (`evict`, a tombstone).
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from eventstore.clock import monotonic_clock
from eventstore.errors import Forgotten, KeyExpired, KeyMissing
from eventstore.generations import (
    BOT,
    MICROS_PER_DAY,
    end_of,
    generation_in,
    generation_of,
    label_of,
    months_at,
)
from eventstore.handles import Handle, Secrets, preferred_first
from eventstore.kek import KEY_BYTES, KeyEncryptionKey
from eventstore.keyring_memory import Memory
from eventstore.keystore import KeyStore, SqliteKeyStore
from eventstore.types import Clock, IdempotencyKey, Micros

__all__ = ["BOT", "Handle", "KeyEncryptionKey", "Keyring", "generation_of", "never"]

_MAX_GENERATION: Final = 2**31


def never(_owner: str) -> bool:
    """Tell that nobody was forgotten."""
    return False


class Keyring:
    """Identities and data keys of one bot. Every method may be called on any thread.

    What asks the store raises `LogUnavailable` while it can be neither read nor written.

    A key, and the identity that leads to its owner, is durable before the method that made it
    returns, so it is durable before the first event it seals.
    """

    def __init__(  # noqa: PLR0913 - four of them are settings
        self,
        store: KeyStore,
        kek: KeyEncryptionKey,
        *,
        clock: Clock,
        is_forgotten: Callable[[str], bool] = never,
        identities: int = 100_000,
        keys: int = 50_000,
        monotonic: Clock = monotonic_clock,
    ) -> None:
        """Open the keyring in `store`, which `close` will close.

        `is_forgotten` tells, from memory, whether a tombstone names a pseudonym. `identities` and
        `keys` bound what is kept in memory: about 0.3 KB each; `monotonic` measures how
        long that is believed. Raises `KeyEncryptionKeyError` if `kek` is not the one that the
        keyring was made with.
        """
        self.clashes = 0
        """Persons whose phone and lid were found to lead to two pseudonyms."""
        self._store = store
        self._kek = kek
        self._clock = clock
        self._is_forgotten = is_forgotten
        self._memory = Memory(identities=identities, keys=keys, monotonic=monotonic)
        self._io = Lock()  # held over each use of the store *and* what it changes in memory
        self._today = (-1, 0)  # day since 1970, its month
        self._secrets = Secrets.load(store, kek)
        self._confirm_memory()

    @classmethod
    def open(  # noqa: PLR0913 - as `__init__`
        cls,
        path: Path,
        kek: KeyEncryptionKey,
        *,
        clock: Clock,
        is_forgotten: Callable[[str], bool] = never,
        identities: int = 100_000,
        keys: int = 50_000,
    ) -> Keyring:
        """Open or create the keyring in the SQLite file at `path`. See `__init__`."""
        store = SqliteKeyStore(path)
        try:
            return cls(
                store,
                kek,
                clock=clock,
                is_forgotten=is_forgotten,
                identities=identities,
                keys=keys,
            )
        except BaseException:
            store.close()
            raise

    # Who is who

    def cached(self, handles: tuple[Handle, ...]) -> str | None:
        """Return whom the handles lead to if memory knows *every* one of them; no I/O.

        None does not mean unknown: call `register`, which also links a handle that is new.
        """
        if not self._memory.fresh():
            return None
        pseudonym = None
        for handle in preferred_first(handles):
            known = self._memory.identities.get(handle)
            if known is None or self._is_forgotten(known):
                return None
            pseudonym = pseudonym or known
        return pseudonym

    @property
    def memory(self) -> Memory:
        """What is kept in memory, for its figures."""
        return self._memory

    def find(self, handles: tuple[Handle, ...]) -> str | None:
        """Return whom any of the handles leads to, the phone first; asks memory, then the store."""
        for handle in preferred_first(handles):
            if (known := self.cached((handle,))) is not None:
                return known
            with self._io:
                self._confirm_memory()
                stored = self._stored(handle)
                if stored is not None:
                    self._memory.identities.put(handle, stored)
                    return stored
        return None

    def register(self, requests: Sequence[tuple[Handle, ...]]) -> list[str]:
        """Return the pseudonym of each person, given by their handles, in the order asked.

        In one transaction: who is unknown gets a pseudonym, a further handle of somebody known is
        linked to them, and each has a key of the current generation, which is in memory and
        durable on return. Where phone and lid lead to two persons already, the phone's is
        returned, neither row is changed, and `clashes` grows by one. A handle of somebody
        forgotten leads to somebody new.
        """
        if not all(requests):
            msg = "a person without any handle cannot be registered"
            raise ValueError(msg)
        now = self._clock()
        with self._io:
            with self._store.transaction():
                self._confirm_memory()
                known: dict[Handle, str] = {}
                clashed: set[tuple[Handle, ...]] = set()
                pseudonyms = [self._settle(handles, known, clashed) for handles in requests]
                keys = self._current_keys(pseudonyms, now)
            self._remember(known, keys)
            self.clashes += len(clashed)
        return pseudonyms

    def handles_of(self, pseudonym: str) -> tuple[Handle, ...]:
        """Return a person's handles in clear, for those who may see them. Empty if unknown."""
        with self._io:
            rows = self._store.boxes(pseudonym)
        return tuple(self._secrets.open(hmac, pseudonym, box) for hmac, box in rows)

    # Whose key

    def generation(self, owner: str | None = None) -> int:
        """Return the current generation: `owner`'s, or that of persons. Memory only."""
        return generation_in(owner or "", self._month(self._clock()))

    def has_current_key(self, owner: str) -> bool:
        """Tell whether `owner`'s current key is durable and at hand: sealing will not wait."""
        return self._at_hand(owner) is not None

    def key_at_hand(self, owner: str) -> tuple[int, AESGCM] | None:
        """Return what `current_key` would, if memory has it and is fresh; no I/O."""
        found = self._at_hand(owner)
        return None if found is None else (found[0], AESGCM(found[1]))

    def _at_hand(self, owner: str) -> tuple[int, bytes] | None:
        generation = self.generation(owner)
        key = self._memory.keys.get((owner, generation))
        if key is None or not self._memory.fresh() or self._is_forgotten(owner):
            return None
        return generation, key

    def ensure_keys(self, owners: Sequence[str]) -> None:
        """Give each owner a key of the current generation, in one transaction, durable on return.

        Raises, and makes no key, if one of them was `Forgotten`, or is neither registered nor
        the bot (`KeyMissing`: the identities were lost or destroyed, and a key that nobody leads
        to could never be destroyed).
        """
        self._ensure(owners, self._clock())

    def current_key(self, owner: str) -> tuple[int, AESGCM]:
        """Return the current generation and its key, made durable first if there is none yet.

        A key that only fell out of memory is read back, without waiting for another process that
        writes. Raises as `ensure_keys`.
        """
        now = self._clock()
        generation = generation_in(owner, self._month(now))
        if self._is_forgotten(owner):
            raise Forgotten(owner)
        key = self._kept_key(owner, generation)
        if key is None:
            key = self._ensure((owner,), now)[owner, generation]
        return generation, AESGCM(key)

    def key_for(self, owner: str, generation: int) -> AESGCM:
        """Return the key that opens what was sealed for `owner` in `generation`.

        Raises `Forgotten` if a tombstone names the owner, `KeyExpired` if the key was destroyed
        by age, `KeyMissing` if there is neither key nor tombstone.
        """
        if self._is_forgotten(owner):
            raise Forgotten(owner)
        key = self._kept_key(owner, generation)
        if key is None:
            raise KeyMissing(owner, generation)
        return AESGCM(key)

    def _kept_key(self, owner: str, generation: int) -> bytes | None:
        """Ask memory, then the store, which is only read."""
        key = self._memory.keys.get((owner, generation))
        if key is not None and self._memory.believed():
            return key
        with self._io:
            self._confirm_memory()
            key = self._memory.keys.get((owner, generation)) or self._load_key(owner, generation)
            if key is not None:
                self._memory.keys.put((owner, generation), key)
        return key

    def fingerprint(self, *parts: str) -> IdempotencyKey:
        """Return 16 bytes that stand for `parts` and tell nothing of them without this keyring.

        Keyed BLAKE2b (RFC 7693) over the parts, each behind its length: ("a", "bc") and
        ("ab", "c") differ.
        """
        return self._secrets.fingerprint(parts)

    # Destroying

    def evict(self, owner: str) -> None:
        """Drop `owner` from memory, as every node does when a person is forgotten."""
        self._memory.evict(owner)

    def destroy(self, owner: str) -> None:
        """Destroy `owner`'s keys and identities for good: durable and overwritten on return.

        Without a tombstone their texts are `KeyMissing` from now on: write it first. May be
        repeated; if it raises, repeat it.
        """
        with self._io:
            with self._store.transaction():
                self._store.erase(owner)
            self.evict(owner)
            self._store.wipe()

    def destructions(self) -> int:
        """Return a number that changes whenever a key or a person is destroyed, by whomever."""
        with self._io:
            return self._store.destructions()

    def generations(self, owner: str) -> list[int]:
        """Return the generations of which `owner` has a key, oldest first; none that expired."""
        with self._io:
            return self._store.generations(owner)

    def expire(self, owner: str, generations: Sequence[int]) -> list[int]:
        """Destroy those keys of `owner`: durable and overwritten on return.

        Returns which of them there were. What they sealed is `KeyExpired` from now on. May be
        repeated; if it raises, repeat it.
        """
        with self._io:
            with self._store.transaction():
                gone = [each for each in self._store.generations(owner) if each in generations]
                for generation in gone:
                    self._store.expire(owner, generation, self._clock())
            self._memory.evict(owner)
            if self._store.wipe_due():
                self._store.wipe()
        return gone

    def expire_bot_keys(self, older_than_days: int) -> list[str]:
        """Destroy each of the bot's keys whose month ended so many days ago, or longer.

        Whatever it sealed is then at least that old. Returns what was destroyed, as `bot/2026-08`.
        See `expire`.
        """
        oldest = self._clock() - older_than_days * MICROS_PER_DAY
        old = [each for each in self.generations(BOT) if end_of(BOT, each) <= oldest]
        return [label_of(BOT, each) for each in self.expire(BOT, old)]

    def close(self) -> None:
        """Close the store. Calling it again does nothing."""
        with self._io:
            self._store.close()

    # Inside: each of these is called with `_io` held

    def _confirm_memory(self) -> None:
        """Drop what another process may have destroyed, if it is time to look."""
        if not self._memory.fresh():
            self._memory.confirm(self._store.destructions())

    def _settle(
        self,
        handles: tuple[Handle, ...],
        known: dict[Handle, str],
        clashed: set[tuple[Handle, ...]],
    ) -> str:
        """Find or create one person inside a transaction, noting what each handle leads to."""
        wanted = preferred_first(handles)
        for handle in wanted:
            if handle not in known and (stored := self._stored(handle)) is not None:
                known[handle] = stored
        led_to = [known[handle] for handle in wanted if handle in known]
        pseudonym = led_to[0] if led_to else _new_pseudonym()
        if len(set(led_to)) > 1:
            clashed.add(handles)
        for handle in wanted:
            if handle not in known:
                box = self._secrets.seal(handle, pseudonym)
                self._store.put_identity(self._secrets.hash(handle), pseudonym, box)
                known[handle] = pseudonym
        return pseudonym

    def _stored(self, handle: Handle) -> str | None:
        pseudonym = self._store.pseudonym(self._secrets.hash(handle))
        if pseudonym is None or self._is_forgotten(pseudonym):
            return None
        return pseudonym

    def _ensure(self, owners: Iterable[str], now: Micros) -> dict[tuple[str, int], bytes]:
        for owner in owners:
            if self._is_forgotten(owner):
                raise Forgotten(owner)
        with self._io:
            with self._store.transaction():
                self._confirm_memory()
                for owner in owners:
                    if owner != BOT and not self._store.boxes(owner):
                        raise KeyMissing(owner, generation_in(owner, self._month(now)))
                keys = self._current_keys(owners, now)
            self._remember({}, keys)
        return keys

    def _current_keys(self, owners: Iterable[str], now: Micros) -> dict[tuple[str, int], bytes]:
        """Find or make each owner's key of `now`, inside a transaction."""
        months = self._month(now)
        keys = {}
        for owner in dict.fromkeys(owners):
            generation = generation_in(owner, months)
            key = self._memory.keys.get((owner, generation))
            key = key or self._load_key(owner, generation)
            keys[owner, generation] = key or self._make_key(owner, generation, now)
        return keys

    def _load_key(self, owner: str, generation: int) -> bytes | None:
        if not 0 <= generation < _MAX_GENERATION:  # a forged number, not one that was ever given
            return None
        wrapped = self._store.key(owner, generation)
        if wrapped is None:
            return None
        if not wrapped:
            raise KeyExpired(owner, generation)
        return self._kek.unwrap(wrapped, owner, generation)

    def _make_key(self, owner: str, generation: int, now: Micros) -> bytes:
        key = os.urandom(KEY_BYTES)
        self._store.put_key(owner, generation, self._kek.wrap(key, owner, generation), now)
        return key

    def _remember(self, known: dict[Handle, str], keys: dict[tuple[str, int], bytes]) -> None:
        """Take into memory what has just become durable."""
        for handle, pseudonym in known.items():
            self._memory.identities.put(handle, pseudonym)
        for name, key in keys.items():
            self._memory.keys.put(name, key)

    def _month(self, now: Micros) -> int:
        day, months = self._today
        today = now // MICROS_PER_DAY
        if today != day:
            months = months_at(today)
            self._today = (today, months)
        return months


def _new_pseudonym() -> str:
    """Return 100 random bits as 20 lower-case letters and digits (base32)."""
    return base64.b32encode(os.urandom(13))[:20].decode().lower()
