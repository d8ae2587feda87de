"""Personal data, sealed: one key per person and quarter, opened only at the edge.

`Sealed[T]` is AES-256-GCM over `salt ‖ msgpack(T)` with the stream, the field and the key's
generation as associated data, and beside it SHA-256(salt ‖ msgpack(T)): one text can be
disclosed and proved later without giving a key away. Losing the type argument, or printing a
`Sealed`, shows ciphertext only.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from eventstore.errors import CannotUnseal
from eventstore.kek import NONCE_BYTES
from eventstore.keyring import Keyring
from eventstore.randomness import random_bytes
from eventstore.types import StreamName

T = TypeVar("T")

SALT_BYTES: Final = 16


class Sealed(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """A value that only the holder of its owner's key can read."""

    generation: int = msgspec.field(name="g")
    box: bytes = msgspec.field(name="c")
    """nonce (12) ‖ AES-256-GCM(salt (16) ‖ msgpack(T)) with its tag (16) at the end"""
    digest: bytes = msgspec.field(name="h")
    """SHA-256(salt ‖ msgpack(T)), 32 bytes"""


class Disclosure(NamedTuple):
    """What proves one sealed text to somebody who holds the event but no key."""

    salt: bytes
    plaintext: bytes
    """msgpack(T), exactly as it was sealed"""


class Sealer:
    """Seals and opens values with the keys of one keyring. May be used on any thread."""

    def __init__(self, keyring: Keyring) -> None:
        """Use the keys of `keyring`."""
        self._keyring = keyring
        self._encode = msgspec.msgpack.Encoder().encode
        self._decoders: dict[object, Callable[[bytes], Any]] = {}

    def seal(self, owner: str, stream: StreamName, field: str, value: T) -> Sealed[T]:
        """Seal `value` for `owner`, to be opened in this stream and field only.

        Waits for the disk only if the owner has no key of the current generation at hand: it is
        durable before anything is sealed with it. Raises `Forgotten`, or `KeyMissing` if nobody
        leads to this owner (see `Keyring.ensure_keys`).
        """
        return self._seal(self._keyring.current_key(owner), stream, field, value)

    def seal_at_hand(
        self, owner: str, stream: StreamName, field: str, value: T
    ) -> Sealed[T] | None:
        """Do what `seal` does if the key is in memory; None, without waiting, if it is not."""
        current = self._keyring.key_at_hand(owner)
        return None if current is None else self._seal(current, stream, field, value)

    def _seal(
        self, current: tuple[int, AESGCM], stream: StreamName, field: str, value: T
    ) -> Sealed[T]:
        generation, key = current
        random = random_bytes(NONCE_BYTES + SALT_BYTES)
        nonce = random[:NONCE_BYTES]
        plain = random[NONCE_BYTES:] + self._encode(value)
        box = nonce + key.encrypt(nonce, plain, _associated(stream, field, generation))
        return Sealed(generation, box, sha256(plain).digest())

    def open(
        self, owner: str, stream: StreamName, field: str, sealed: Sealed[T], type_: type[T]
    ) -> T:
        """Return the value.

        Raises `CannotUnseal` if key, stream, field, generation, ciphertext, digest or type do not
        belong together, `Forgotten`, `KeyExpired` or `KeyMissing` if the key is gone.
        """
        text = self._unseal(owner, stream, field, sealed)[SALT_BYTES:]
        try:
            value: T = self._decoder(type_)(text)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            msg = f"what is sealed in {field} of {stream} is not of type {type_!r}"
            raise CannotUnseal(msg) from None  # the cause may quote the text
        return value

    def disclose(
        self, owner: str, stream: StreamName, field: str, sealed: Sealed[Any]
    ) -> Disclosure:
        """Return the salt and the plaintext, for `verify_disclosure`. Raises as `open` does."""
        plain = self._unseal(owner, stream, field, sealed)
        return Disclosure(plain[:SALT_BYTES], plain[SALT_BYTES:])

    def _unseal(self, owner: str, stream: StreamName, field: str, sealed: Sealed[Any]) -> bytes:
        key = self._keyring.key_for(owner, sealed.generation)
        nonce, text = sealed.box[:NONCE_BYTES], sealed.box[NONCE_BYTES:]
        try:
            plain = key.decrypt(nonce, text, _associated(stream, field, sealed.generation))
        except (InvalidTag, ValueError):  # ValueError: cut too short to hold even a nonce
            msg = (
                f"{field} of {stream} was not sealed there for {owner} in generation "
                f"{sealed.generation}, or was changed"
            )
            raise CannotUnseal(msg) from None
        if not compare_digest(sha256(plain).digest(), sealed.digest):
            msg = f"the digest of {field} in {stream} is not that of the sealed text"
            raise CannotUnseal(msg)
        return plain

    def _decoder(self, type_: type[T]) -> Callable[[bytes], T]:
        decoder = self._decoders.get(type_)
        if decoder is None:
            decoder = self._decoders[type_] = msgspec.msgpack.Decoder(type_).decode
        return decoder


def verify_disclosure(sealed: Sealed[Any], salt: bytes, plaintext: bytes) -> bool:
    """Tell, without any key, whether this is what was sealed.

    The salt's length is part of the proof: a byte moved from plaintext to salt is refused.
    """
    if len(salt) != SALT_BYTES:
        return False
    return compare_digest(sha256(salt + plaintext).digest(), sealed.digest)


def _associated(stream: StreamName, field: str, generation: int) -> bytes:
    """Encode so that no two triples look alike: the one inner boundary is given by a length."""
    name = stream.encode()
    frame = generation.to_bytes(8, "big") + len(name).to_bytes(4, "big")
    return b"sealed/1\0" + frame + name + field.encode()
