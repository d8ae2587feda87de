"""Arrays of parameters in PostgreSQL's binary format, made in one go.

`psycopg` would look at every element for its type, and choose that of the array by its values: too
slow for the hot path, and another prepared statement for each mixture. The format is that of
`array_recv` and `array_send`: dimensions, whether there are NULLs, the type of the elements, the
length and lower bound of the one dimension; then each element after its length, -1 for NULL.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct, pack
from typing import Any, Final

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

_HEADER: Final = Struct(">iiIii")
_EMPTY: Final = Struct(">iiI")
_LENGTHS: Final = [n.to_bytes(4, "big") for n in range(4096)]
_NULL: Final = b"\xff\xff\xff\xff"
_BIGINT, _BYTEA, _TEXT = 20, 17, 25


class Bigints(bytes):
    """An encoded `bigint[]`."""

    __slots__ = ()


class Byteas(bytes):
    """An encoded `bytea[]`."""

    __slots__ = ()


class Texts(bytes):
    """An encoded `text[]`."""

    __slots__ = ()


def bigints(values: Sequence[int]) -> Bigints:
    """Encode integers. Raises `struct.error` for what does not fit 64 bits."""
    flat = [8] * (2 * len(values))
    flat[1::2] = values
    return Bigints(_header(_BIGINT, len(values)) + pack(">" + "iq" * len(values), *flat))


def byteas(values: Sequence[bytes | None]) -> Byteas:
    """Encode bytes, or NULL."""
    return Byteas(_header(_BYTEA, len(values)) + _elements(values))


def texts(values: Sequence[str]) -> Texts:
    """Encode texts. Raises `UnicodeEncodeError` for a lone surrogate."""
    return Texts(_header(_TEXT, len(values)) + _elements(map(str.encode, values)))


def register_arrays(connection: psycopg.Connection[Any]) -> None:
    """Let a connection take them as parameters."""
    for encoded, dumper in ((Bigints, _Bigints), (Byteas, _Byteas), (Texts, _Texts)):
        connection.adapters.register_dumper(encoded, dumper)


class _AsItIs(Dumper):
    format = Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        return obj


class _Bigints(_AsItIs):
    oid = 1016


class _Byteas(_AsItIs):
    oid = 1001


class _Texts(_AsItIs):
    oid = 1009


def _elements(values: Iterable[bytes | None]) -> bytes:
    parts: list[bytes] = []
    for value in values:
        if value is None:
            parts.append(_NULL)
            continue
        size = len(value)
        parts.append(_LENGTHS[size] if size < len(_LENGTHS) else size.to_bytes(4, "big"))
        parts.append(value)
    return b"".join(parts)


def _header(kind: int, length: int) -> bytes:
    """Open an array of one dimension; an empty one has none."""
    return _HEADER.pack(1, 1, kind, length, 1) if length else _EMPTY.pack(0, 0, kind)
