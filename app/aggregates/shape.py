"""The shape of a state: a hash that changes when a stored snapshot must not be read any more."""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import inspect


def shape_of(state: type[msgspec.Struct], rules: int) -> bytes:
    """Return 16 bytes over the names and types of all fields, recursively, and over `rules`.

    `rules` counts the changes of meaning that leave the fields as they are: raise it when a
    replay of old events gives another state than before.
    """
    text = f"{rules}:{_describe(inspect.type_info(state))}"
    return hashlib.sha256(text.encode()).digest()[:16]


def _describe(kind: inspect.Type) -> str:
    match kind:
        case inspect.StructType(cls=cls, fields=fields):
            inner = ",".join(f"{f.name}={f.encode_name}:{_describe(f.type)}" for f in fields)
            return f"{cls.__name__}({inner})"
        case inspect.VarTupleType(item_type=item):
            return f"[{_describe(item)}]"
        case inspect.DictType(key_type=key, value_type=value):
            return f"{{{_describe(key)}:{_describe(value)}}}"
        case inspect.UnionType(types=types):
            return "|".join(sorted(map(_describe, types)))
        case inspect.LiteralType(values=values):
            return f"={values!r}"
        case _:
            return type(kind).__name__
