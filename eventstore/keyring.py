"""Who is who, and whose key opens what: pseudonyms and data keys, durable before they are used.

A person is known by handles (a phone number, a lid). Each handle leads, through a keyed hash, to
one random pseudonym; the pseudonym owns one data key per generation (a quarter of a year). Data
keys are kept wrapped by a key-encryption key that lives elsewhere. Whoever holds `keys.db` alone
can neither enumerate numbers nor open anything; whoever destroys a person's rows destroys what
was sealed for them, in every copy of the log.

`cached`, `has_current_key`, `generation` and `fingerprint` touch memory only and belong on the
hot path; everything else may wait for the disk.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import sqlite3
import stat
import subprocess
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Final, Generic, Protocol, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from eventstore import sql
from eventstore.errors import Forgotten, KeyMissing, KeyringError
from eventstore.types import Clock, IdempotencyKey, Micros

BOT: Final = "bot"
"""Owner of what belongs to no single person; its keys last a month instead of a quarter."""

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12

_PREFERRED_KIND: Final = "phone"
_MICROS_PER_DAY: Final = 86_400_000_000
_MAX_GENERATION: Final = 2**31
_SCHEMA_VERSION: Final = 1
_BUSY_SECONDS: Final = 10.0
_OWNER_ONLY: Final = 0o600

K = TypeVar("K")
V = TypeVar("V")


class KeyEncryptionKeyError(KeyringError):
    """The key-encryption key is absent, malformed, exposed, or not this keyring's."""


class Handle(msgspec.Struct, frozen=True, gc=False):
    """One way to reach a person, in clear. `repr` hides the value: it must not reach a log."""

    kind: str
    """`phone`, `lid`, …"""
    value: str

    def __repr__(self) -> str:
        return f"Handle(kind={self.kind!r}, value=…)"


def never(_owner: str) -> bool:
    """Tell that nobody was forgotten."""
    return False


def generation_of(owner: str, now: Micros) -> int:
    """Return the generation of `owner`'s key at an instant.

    Persons: a quarter, `year * 4 + quarter` (0…3). `BOT`: a month, `year * 12 + month` (0…11).
    Both count without gaps, in UTC.
    """
    return _generation(owner, _months(now // _MICROS_PER_DAY))


def _generation(owner: str, months: int) -> int:
    return months if owner == BOT else months // 3


def _months(day: int) -> int:
    date = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)
    return date.year * 12 + date.month - 1


# --- the key-encryption key ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class KeyEncryptionKey:
    """Wraps and unwraps 32-byte data keys: AES-256-GCM, bound to owner and generation."""

    _cipher: AESGCM

    @classmethod
    def from_bytes(cls, key: bytes) -> KeyEncryptionKey:
        """Take 32 bytes as the key. Raises `KeyEncryptionKeyError` for any other size."""
        if len(key) != KEY_BYTES:
            msg = f"a key-encryption key has {KEY_BYTES} bytes, not {len(key)}"
            raise KeyEncryptionKeyError(msg)
        return cls(AESGCM(key))

    @classmethod
    def from_file(cls, path: Path) -> KeyEncryptionKey:
        """Read the key from `path`; if nothing is there, make a random one, durable on return.

        The new file has mode 0600. Raises `KeyEncryptionKeyError` if the file is open to others
        (any access for them, or write access for its group) or does not hold exactly 32 bytes.
        """
        if not path.exists():
            _create_key_file(path)
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & (stat.S_IRWXO | stat.S_IWGRP):
                msg = (
                    f"others can reach the key-encryption key {path} (mode {mode & 0o777:04o}): "
                    "chmod 600 it, and replace it if somebody may have read it"
                )
                raise KeyEncryptionKeyError(msg)
            key = file.read(KEY_BYTES + 1)
        if len(key) != KEY_BYTES:
            msg = f"{path} does not hold a key of {KEY_BYTES} bytes: put its backup in its place"
            raise KeyEncryptionKeyError(msg)
        return cls.from_bytes(key)

    @classmethod
    def from_base64(cls, text: str) -> KeyEncryptionKey:
        """Decode the key from standard base64, as an environment variable carries it."""
        try:
            key = base64.b64decode(text.strip(), validate=True)
        except (binascii.Error, ValueError):
            msg = "the key-encryption key is not base64: `openssl rand -base64 32` makes one"
            raise KeyEncryptionKeyError(msg) from None  # the cause would quote the key
        return cls.from_bytes(key)

    @classmethod
    def from_command(cls, argv: Sequence[str], *, timeout: float = 30.0) -> KeyEncryptionKey:
        """Run a command (no shell) that prints the key in base64. `timeout` is in seconds."""
        try:
            done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=timeout)
        except (OSError, subprocess.SubprocessError) as error:
            reason = getattr(error, "returncode", None)
            how = type(error).__name__ if reason is None else f"exit status {reason}"
            msg = f"{argv[0]!r} did not give the key-encryption key ({how})"
            raise KeyEncryptionKeyError(msg) from None  # the cause may hold what was printed
        return cls.from_base64(done.stdout.decode("ascii", errors="replace"))

    def wrap(self, key: bytes, owner: str, generation: int) -> bytes:
        """Return nonce (12) ‖ ciphertext ‖ tag (16)."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, key, _wrapping(owner, generation))

    def unwrap(self, wrapped: bytes, owner: str, generation: int) -> bytes:
        """Undo `wrap`. Raises `KeyEncryptionKeyError` if key, owner or generation differ."""
        nonce, box = wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, box, _wrapping(owner, generation))
        except (InvalidTag, ValueError):
            msg = (
                f"the key of {owner}, generation {generation}, was not wrapped by this "
                "key-encryption key, or its row is damaged: put the right one, or the backup, back"
            )
            raise KeyEncryptionKeyError(msg) from None


def _wrapping(owner: str, generation: int) -> bytes:
    return b"data key/1\0" + generation.to_bytes(8, "big") + owner.encode()


def _create_key_file(path: Path) -> None:
    """Put 32 random bytes at `path`, whole and durable or not at all; the first of two wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- where rows are kept -------------------------------------------------------------------------


class KeyStore(Protocol):
    """Rows of identities, wrapped keys and wrapped secrets. Used by one thread at a time."""

    def transaction(self) -> AbstractContextManager[None]:
        """Keep every other writer out; what was written is durable on leaving, or undone."""

    def secrets(self) -> dict[str, bytes]:
        """Return the wrapped secrets by name."""

    def put_secret(self, name: str, wrapped: bytes) -> None:
        """Add a secret."""

    def holds_people(self) -> bool:
        """Tell whether there is any identity or key."""

    def pseudonym(self, handle_hmac: bytes) -> str | None:
        """Return whom a handle leads to."""

    def boxes(self, pseudonym: str) -> list[tuple[bytes, bytes]]:
        """Return a person's handles as (hmac, box)."""

    def put_identity(self, handle_hmac: bytes, pseudonym: str, box: bytes) -> None:
        """Add an identity, or replace whom it leads to."""

    def key(self, owner: str, generation: int) -> bytes | None:
        """Return a wrapped key."""

    def put_key(self, owner: str, generation: int, wrapped: bytes, created_at: Micros) -> None:
        """Add a wrapped key."""

    def erase(self, owner: str) -> None:
        """Delete an owner's keys and identities."""

    def wipe(self) -> None:
        """Overwrite what was erased, wherever the store still keeps a copy."""

    def close(self) -> None:
        """Let go of the store."""


class SqliteKeyStore:
    """`keys.db`: WAL, every commit synced, deleted content overwritten with zeros.

    Several processes may open one file: writers wait for each other up to 10 s.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file (mode 0600). Raises `KeyringError` if a newer release made it."""
        self._sql = sql.load("keyring.sql")
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(
            path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        if stat.S_IMODE(self._path.stat().st_mode) != _OWNER_ONLY:  # -wal and -shm inherit it
            self._path.chmod(_OWNER_ONLY)
        self._enter_wal()
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA secure_delete = ON")
        self._connection.execute("PRAGMA temp_store = MEMORY")  # VACUUM copies no key to a disk
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > _SCHEMA_VERSION:
            msg = f"{self._path} was made by a newer release (schema {version}): upgrade this node"
            raise KeyringError(msg)
        if version < _SCHEMA_VERSION:
            with self.transaction():
                for statement in self._sql["schema"].split(";\n"):
                    self._connection.execute(statement)
            _sync_directory(self._path.parent)

    def _enter_wal(self) -> None:
        """Switch to WAL: the one statement for which SQLite's busy time-out does not wait."""
        give_up = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.01)
            else:
                return

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Take the write lock before the first read, so that what was read still holds."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def secrets(self) -> dict[str, bytes]:
        """Return the wrapped secrets by name."""
        return dict(self._connection.execute(self._sql["select_secrets"]).fetchall())

    def put_secret(self, name: str, wrapped: bytes) -> None:
        """Add a secret."""
        self._connection.execute(self._sql["insert_secret"], (name, wrapped))

    def holds_people(self) -> bool:
        """Tell whether there is any identity or key."""
        (found,) = self._connection.execute(self._sql["select_holds_people"]).fetchone()
        return bool(found)

    def pseudonym(self, handle_hmac: bytes) -> str | None:
        """Return whom a handle leads to."""
        rows = self._connection.execute(self._sql["select_pseudonym"], (handle_hmac,)).fetchall()
        return str(rows[0][0]) if rows else None

    def boxes(self, pseudonym: str) -> list[tuple[bytes, bytes]]:
        """Return a person's handles as (hmac, box)."""
        return self._connection.execute(self._sql["select_boxes"], (pseudonym,)).fetchall()

    def put_identity(self, handle_hmac: bytes, pseudonym: str, box: bytes) -> None:
        """Add an identity, or replace whom it leads to."""
        self._connection.execute(self._sql["upsert_identity"], (handle_hmac, pseudonym, box))

    def key(self, owner: str, generation: int) -> bytes | None:
        """Return a wrapped key."""
        rows = self._connection.execute(self._sql["select_key"], (owner, generation)).fetchall()
        return bytes(rows[0][0]) if rows else None

    def put_key(self, owner: str, generation: int, wrapped: bytes, created_at: Micros) -> None:
        """Add a wrapped key."""
        self._connection.execute(self._sql["insert_key"], (owner, generation, wrapped, created_at))

    def erase(self, owner: str) -> None:
        """Delete an owner's keys and identities."""
        self._connection.execute(self._sql["delete_keys"], (owner,))
        self._connection.execute(self._sql["delete_identities"], (owner,))

    def wipe(self) -> None:
        """Rebuild the file and empty the WAL. Raises `KeyringError` if a reader is in the way.

        `secure_delete` zeroes deleted cells, but not the copies that a page keeps after its cells
        were moved to a sibling; VACUUM writes every page anew.
        """
        self._connection.execute("VACUUM")
        (busy, _, _) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            msg = f"{self._path} is being read: what was erased is still in its WAL; try again"
            raise KeyringError(msg)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


# --- the keyring ---------------------------------------------------------------------------------


class _Recent(Generic[K, V]):
    """A bounded map that drops what was not used for longest. Safe on any thread."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._items: OrderedDict[K, V] = OrderedDict()
        self._lock = Lock()

    def get(self, key: K) -> V | None:
        with self._lock:
            item = self._items.get(key)
            if item is not None:
                self._items.move_to_end(key)
            return item

    def put(self, key: K, value: V) -> None:
        with self._lock:
            self._items[key] = value
            self._items.move_to_end(key)
            if len(self._items) > self._bound:
                self._items.popitem(last=False)

    def drop(self, unwanted: Callable[[K, V], bool]) -> None:
        with self._lock:
            for key in [key for key, value in self._items.items() if unwanted(key, value)]:
                del self._items[key]


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class _Secrets:
    """The keyring's own secrets: made with it, wrapped like data keys, lost with it."""

    identities: bytes
    """Keys the hash by which a handle is found."""
    handles: bytes
    """Seals the handles themselves, so that a pseudonym can be resolved."""
    fingerprints: bytes
    """Keys idempotency keys."""

    NAMES = ("check", "identities", "handles", "fingerprints")

    @classmethod
    def load(cls, store: KeyStore, kek: KeyEncryptionKey) -> _Secrets:
        wrapped = store.secrets()
        if not wrapped:
            with store.transaction():
                wrapped = store.secrets() or cls._make(store, kek)
        try:
            check, *secrets = (kek.unwrap(wrapped[name], _secret(name), 0) for name in cls.NAMES)
        except KeyEncryptionKeyError:
            msg = (
                "this key-encryption key did not make this keyring: give the one that did (if its "
                "file was just made anew, put the backup in its place)"
            )
            raise KeyEncryptionKeyError(msg) from None
        except KeyError as error:
            msg = f"the keyring has lost its secret {error}: restore its backup"
            raise KeyringError(msg) from None
        if check != bytes(KEY_BYTES):
            msg = "the keyring's check value is damaged: restore its backup"
            raise KeyringError(msg)
        return cls(*secrets)

    @classmethod
    def _make(cls, store: KeyStore, kek: KeyEncryptionKey) -> dict[str, bytes]:
        if store.holds_people():
            msg = "the keyring holds people but has lost its secrets: restore its backup"
            raise KeyringError(msg)
        for name in cls.NAMES:
            secret = bytes(KEY_BYTES) if name == "check" else os.urandom(KEY_BYTES)
            store.put_secret(name, kek.wrap(secret, _secret(name), 0))
        return store.secrets()


def _secret(name: str) -> str:
    return f"secret/{name}"


class Keyring:
    """Identities and data keys of one bot. Every method may be called on any thread.

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
    ) -> None:
        """Open the keyring in `store`, which `close` will close.

        `is_forgotten` tells, from memory, whether a tombstone names a pseudonym. `identities` and
        `keys` bound what is kept in memory: about 0.3 and 2.6 KB each. Raises
        `KeyEncryptionKeyError` if `kek` is not the one that the keyring was made with.
        """
        self.clashes = 0
        """Persons whose phone and lid were found to lead to two pseudonyms."""
        self._store = store
        self._kek = kek
        self._clock = clock
        self._is_forgotten = is_forgotten
        self._identities: _Recent[Handle, str] = _Recent(identities)
        self._keys: _Recent[tuple[str, int], AESGCM] = _Recent(keys)
        self._io = Lock()  # held over each use of the store *and* what it changes in memory
        self._today = (-1, 0)  # day since 1970, its month
        secrets = _Secrets.load(store, kek)
        self._handle_box = AESGCM(secrets.handles)
        self._handle_hash = hashlib.blake2b(key=secrets.identities, digest_size=16)
        self._fingerprint_hash = hashlib.blake2b(key=secrets.fingerprints, digest_size=16)

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
        pseudonym = None
        for handle in _preferred_first(handles):
            known = self._identities.get(handle)
            if known is None or self._is_forgotten(known):
                return None
            pseudonym = pseudonym or known
        return pseudonym

    def find(self, handles: tuple[Handle, ...]) -> str | None:
        """Return whom any of the handles leads to, the phone first; asks memory, then the store."""
        for handle in _preferred_first(handles):
            if (known := self.cached((handle,))) is not None:
                return known
            with self._io:
                stored = self._stored(handle)
                if stored is not None:
                    self._identities.put(handle, stored)
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
        return tuple(self._open_handle(hmac, pseudonym, box) for hmac, box in rows)

    # Whose key

    def generation(self, owner: str | None = None) -> int:
        """Return the current generation: `owner`'s, or that of persons. Memory only."""
        return _generation(owner or "", self._month(self._clock()))

    def has_current_key(self, owner: str) -> bool:
        """Tell whether `owner`'s current key is durable and at hand: sealing will not wait."""
        return self._keys.get((owner, self.generation(owner))) is not None

    def ensure_keys(self, owners: Sequence[str]) -> None:
        """Give each owner a key of the current generation, in one transaction, durable on return.

        Raises, and makes no key, if one of them was `Forgotten`, or is neither registered nor
        the bot (`KeyMissing`: the identities were lost or destroyed, and a key that nobody leads
        to could never be destroyed).
        """
        self._ensure(owners, self._clock())

    def current_key(self, owner: str) -> tuple[int, AESGCM]:
        """Return the current generation and its key, made durable first if there is none yet."""
        now = self._clock()
        generation = _generation(owner, self._month(now))
        if self._is_forgotten(owner):
            raise Forgotten(owner)
        key = self._keys.get((owner, generation))
        if key is None:
            key = self._ensure((owner,), now)[owner, generation]
        return generation, key

    def key_for(self, owner: str, generation: int) -> AESGCM:
        """Return the key that opens what was sealed for `owner` in `generation`.

        Raises `Forgotten` if a tombstone names the owner, `KeyMissing` if there is neither key
        nor tombstone.
        """
        if self._is_forgotten(owner):
            raise Forgotten(owner)
        key = self._keys.get((owner, generation))
        if key is not None:
            return key
        with self._io:
            key = self._load_key(owner, generation)
            if key is None:
                raise KeyMissing(owner, generation)
            self._keys.put((owner, generation), key)
        return key

    def fingerprint(self, *parts: str) -> IdempotencyKey:
        """Return 16 bytes that stand for `parts` and tell nothing of them without this keyring.

        Keyed BLAKE2b (RFC 7693) over the parts, each behind its length: ("a", "bc") and
        ("ab", "c") differ.
        """
        return IdempotencyKey(_digest(self._fingerprint_hash, parts))

    # Forgetting

    def evict(self, owner: str) -> None:
        """Drop `owner` from memory, as every node does when a person is forgotten."""
        self._identities.drop(lambda _, pseudonym: pseudonym == owner)
        self._keys.drop(lambda key, _: key[0] == owner)

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

    def close(self) -> None:
        """Close the store. Calling it again does nothing."""
        with self._io:
            self._store.close()

    # Inside: each of these is called with `_io` held

    def _settle(
        self,
        handles: tuple[Handle, ...],
        known: dict[Handle, str],
        clashed: set[tuple[Handle, ...]],
    ) -> str:
        """Find or create one person inside a transaction, noting what each handle leads to."""
        wanted = _preferred_first(handles)
        for handle in wanted:
            if handle not in known and (stored := self._stored(handle)) is not None:
                known[handle] = stored
        led_to = [known[handle] for handle in wanted if handle in known]
        pseudonym = led_to[0] if led_to else _new_pseudonym()
        if len(set(led_to)) > 1:
            clashed.add(handles)
        for handle in wanted:
            if handle not in known:
                hmac = self._handle_hmac(handle)
                box = self._seal_handle(hmac, pseudonym, handle)
                self._store.put_identity(hmac, pseudonym, box)
                known[handle] = pseudonym
        return pseudonym

    def _stored(self, handle: Handle) -> str | None:
        pseudonym = self._store.pseudonym(self._handle_hmac(handle))
        if pseudonym is None or self._is_forgotten(pseudonym):
            return None
        return pseudonym

    def _ensure(self, owners: Iterable[str], now: Micros) -> dict[tuple[str, int], AESGCM]:
        for owner in owners:
            if self._is_forgotten(owner):
                raise Forgotten(owner)
        with self._io:
            with self._store.transaction():
                for owner in owners:
                    if owner != BOT and not self._store.boxes(owner):
                        raise KeyMissing(owner, _generation(owner, self._month(now)))
                keys = self._current_keys(owners, now)
            self._remember({}, keys)
        return keys

    def _current_keys(self, owners: Iterable[str], now: Micros) -> dict[tuple[str, int], AESGCM]:
        """Find or make each owner's key of `now`, inside a transaction."""
        months = self._month(now)
        keys = {}
        for owner in dict.fromkeys(owners):
            generation = _generation(owner, months)
            key = self._keys.get((owner, generation)) or self._load_key(owner, generation)
            keys[owner, generation] = key or self._make_key(owner, generation, now)
        return keys

    def _load_key(self, owner: str, generation: int) -> AESGCM | None:
        if not 0 <= generation < _MAX_GENERATION:  # a forged number, not one that was ever given
            return None
        wrapped = self._store.key(owner, generation)
        return None if wrapped is None else AESGCM(self._kek.unwrap(wrapped, owner, generation))

    def _make_key(self, owner: str, generation: int, now: Micros) -> AESGCM:
        key = os.urandom(KEY_BYTES)
        self._store.put_key(owner, generation, self._kek.wrap(key, owner, generation), now)
        return AESGCM(key)

    def _remember(self, known: dict[Handle, str], keys: dict[tuple[str, int], AESGCM]) -> None:
        """Take into memory what has just become durable."""
        for handle, pseudonym in known.items():
            self._identities.put(handle, pseudonym)
        for name, key in keys.items():
            self._keys.put(name, key)

    def _month(self, now: Micros) -> int:
        day, months = self._today
        today = now // _MICROS_PER_DAY
        if today != day:
            months = _months(today)
            self._today = (today, months)
        return months

    def _handle_hmac(self, handle: Handle) -> bytes:
        return _digest(self._handle_hash, (handle.kind, handle.value))

    def _seal_handle(self, hmac: bytes, pseudonym: str, handle: Handle) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        text = msgspec.msgpack.encode(handle)
        return nonce + self._handle_box.encrypt(nonce, text, hmac + pseudonym.encode())

    def _open_handle(self, hmac: bytes, pseudonym: str, box: bytes) -> Handle:
        nonce, text = box[:NONCE_BYTES], box[NONCE_BYTES:]
        try:
            plain = self._handle_box.decrypt(nonce, text, hmac + pseudonym.encode())
        except (InvalidTag, ValueError):
            msg = f"a handle of {pseudonym} is damaged: restore the keyring's backup"
            raise KeyringError(msg) from None
        return msgspec.msgpack.decode(plain, type=Handle)


def _new_pseudonym() -> str:
    """Return 100 random bits as 20 lower-case letters and digits (base32)."""
    return base64.b32encode(os.urandom(13))[:20].decode().lower()


def _preferred_first(handles: tuple[Handle, ...]) -> Sequence[Handle]:
    if len(handles) == 1:
        return handles
    return sorted(handles, key=lambda handle: handle.kind != _PREFERRED_KIND)


def _digest(keyed: hashlib.blake2b, parts: Iterable[str]) -> bytes:
    """Hash each part behind its length, so that no two sequences of parts look alike."""
    digest = keyed.copy()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.digest()
