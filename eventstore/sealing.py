"""Personal data, sealed: one key per person and quarter, opened only at the edge.

`Sealed[T]` is AES-256-GCM over `salt ‖ msgpack(T)` with the stream, the field and the key's
generation as associated data, and beside it SHA-256(salt ‖ msgpack(T)): one text can be
disclosed and proved later without giving a key away. Losing the type argument, or printing a
`Sealed`, shows ciphertext only.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Sealed(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """A value that only the holder of its owner's key can read."""

    generation: int = msgspec.field(name="g")
    box: bytes = msgspec.field(name="c")
    """nonce (12) ‖ AES-256-GCM(salt (16) ‖ msgpack(T)) with its tag (16) at the end"""
    digest: bytes = msgspec.field(name="h")
    """SHA-256(salt ‖ msgpack(T)), 32 bytes"""
