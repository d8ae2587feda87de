"""Handles, and the secrets that hide them: found by a keyed hash, sealed for who may read them.

The fingerprints that stand for ids from outside are keyed by one of the same secrets.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from eventstore.errors import KeyEncryptionKeyError, KeyringError
from eventstore.kek import KEY_BYTES, NONCE_BYTES, KeyEncryptionKey
from eventstore.keystore import KeyStore
from eventstore.types import IdempotencyKey

_PREFERRED_KIND: Final = "phone"
_NAMES: Final = ("check", "identities", "handles", "fingerprints")


class Handle(msgspec.Struct, frozen=True, gc=False):
    """One way to reach a person, in clear. `repr` hides the value: it must not reach a log."""

    kind: str
    """`phone`, `lid`, …"""
    value: str

    def __repr__(self) -> str:
        return f"Handle(kind={self.kind!r}, value=…)"


def preferred_first(handles: tuple[Handle, ...]) -> Sequence[Handle]:
    """Return the phone before the others, which keep their order."""
    if len(handles) == 1:
        return handles
    return sorted(handles, key=lambda handle: handle.kind != _PREFERRED_KIND)


class Secrets:
    """The keyring's own secrets: made with it, wrapped like data keys, lost with it.

    May be used on any thread.
    """

    def __init__(self, identities: bytes, handles: bytes, fingerprints: bytes) -> None:
        """Take three keys of 32 bytes: to find a handle, to seal it, to make fingerprints."""
        self._identities = hashlib.blake2b(key=identities, digest_size=16)
        self._handles = AESGCM(handles)
        self._fingerprints = hashlib.blake2b(key=fingerprints, digest_size=16)

    @classmethod
    def load(cls, store: KeyStore, kek: KeyEncryptionKey) -> Secrets:
        """Unwrap the secrets in `store`; make them, durable on return, in one that is empty.

        Raises `KeyEncryptionKeyError` if another key wrapped them, `KeyringError` if one of them
        is lost or damaged.
        """
        wrapped = store.secrets()
        if not wrapped:
            with store.transaction():
                wrapped = store.secrets() or _make_secrets(store, kek)
        try:
            check, *secrets = (kek.unwrap(wrapped[name], _wrapped_as(name), 0) for name in _NAMES)
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

    def hash(self, handle: Handle) -> bytes:
        """Return 16 bytes by which the handle is found, and not guessed."""
        return _digest(self._identities, (handle.kind, handle.value))

    def seal(self, handle: Handle, pseudonym: str) -> bytes:
        """Return nonce (12) ‖ ciphertext ‖ tag (16), bound to the handle's hash and `pseudonym`."""
        nonce = os.urandom(NONCE_BYTES)
        text = msgspec.msgpack.encode(handle)
        return nonce + self._handles.encrypt(nonce, text, self.hash(handle) + pseudonym.encode())

    def open(self, hmac: bytes, pseudonym: str, box: bytes) -> Handle:
        """Undo `seal`. Raises `KeyringError` if hash, pseudonym and box do not belong together."""
        nonce, text = box[:NONCE_BYTES], box[NONCE_BYTES:]
        try:
            plain = self._handles.decrypt(nonce, text, hmac + pseudonym.encode())
        except (InvalidTag, ValueError):
            msg = f"a handle of {pseudonym} is damaged: restore the keyring's backup"
            raise KeyringError(msg) from None
        return msgspec.msgpack.decode(plain, type=Handle)

    def fingerprint(self, parts: Iterable[str]) -> IdempotencyKey:
        """Return the keyed hash (16 bytes) of `parts`. See `Keyring.fingerprint`."""
        return IdempotencyKey(_digest(self._fingerprints, parts))


def _make_secrets(store: KeyStore, kek: KeyEncryptionKey) -> dict[str, bytes]:
    if store.holds_people():
        msg = "the keyring holds people but has lost its secrets: restore its backup"
        raise KeyringError(msg)
    for name in _NAMES:
        secret = bytes(KEY_BYTES) if name == "check" else os.urandom(KEY_BYTES)
        store.put_secret(name, kek.wrap(secret, _wrapped_as(name), 0))
    return store.secrets()


def _wrapped_as(name: str) -> str:
    return f"secret/{name}"


def _digest(keyed: hashlib.blake2b, parts: Iterable[str]) -> bytes:
    """Hash each part behind its length, so that no two sequences of parts look alike."""
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    digest = keyed.copy()
    digest.update(b"".join([len(part).to_bytes(4, "big") + part for part in encoded]))
    return digest.digest()
