"""The leaf hash: what one event *is*, the same on every store.

A leaf is SHA-256 over `0x00` (RFC 6962 §2.1, leaf prefix), the format's version, then
fixed-width big-endian integers and length-prefixed fields in this order: position u64, stream
version u64, recorded_at i64 (µs), stream name, type, key, append id, state. A NULL key is one
0x00 byte, a present one 0x01 and the field, so that NULL and empty differ. Golden vectors are
in `tests/golden/leaves.json`.
"""

from __future__ import annotations

import hashlib
from struct import Struct

from eventstore.types import Recorded

LEAF_FORMAT = 1
_HEAD = Struct(">BBQQq")
_LENGTH = Struct(">I")


def leaf_hash(event: Recorded) -> bytes:
    """Return the 32-byte leaf hash of one recorded event."""
    stream = event.stream.encode()
    kind = event.type.encode()
    key = event.key
    parts = [
        _HEAD.pack(0, LEAF_FORMAT, event.position, event.version, event.recorded_at),
        _LENGTH.pack(len(stream)),
        stream,
        _LENGTH.pack(len(kind)),
        kind,
        b"\x00" if key is None else b"\x01" + _LENGTH.pack(len(key)) + key,
        _LENGTH.pack(len(event.append_id)),
        event.append_id,
        _LENGTH.pack(len(event.state)),
        event.state,
    ]
    return hashlib.sha256(b"".join(parts)).digest()
