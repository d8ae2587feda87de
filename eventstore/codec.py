"""Events as msgspec structs, and the bytes that the log keeps of them.

The state is a *map-encoded* msgpack struct with short field names, so that a reordered or an
added field is never misread. The stored type name is the class's `type_name`, followed by
`@<schema>` from the second schema version on (`MessageReceived`, `MessageReceived@2`): a
reader knows from the name alone whether it can decode, SQL can filter on it, and a release
that meets a newer version says so (`UnknownEventType`) instead of dropping fields.

Golden bytes of every type and version are kept in `tests/golden/` and decode for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final

import msgspec

from eventstore.errors import CorruptEvent, UnknownEventType
from eventstore.types import IdempotencyKey, NewEvent

State = dict[str, Any]  # what an upcaster rewrites: the msgpack map of an older schema
Upcaster = Callable[[State], State]


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of every event. Subclasses declare short wire names with `msgspec.field(name=…)`.

    `at` is the sender's own time (µs), `cor` the correlation id that one causal chain shares
    (a run's id), `cau` the version, in the same stream, of the event that caused this one.
    """

    type_name: ClassVar[str] = ""
    schema: ClassVar[int] = 1
    upcasters: ClassVar[Mapping[int, Upcaster]] = {}
    """Schema version n → function that turns its map into that of n + 1."""

    at: int | None = None
    cor: str | None = None
    cau: int | None = None


def stored_name(cls: type[Event], schema: int | None = None) -> str:
    """Return the name under which events of `cls` are stored."""
    version = cls.schema if schema is None else schema
    name = cls.type_name or cls.__name__
    return name if version == 1 else f"{name}@{version}"


class Codec:
    """Encodes and decodes a closed set of event classes.

    >>> class Greeted(Event):
    ...     name: str = msgspec.field(name="n")
    >>> codec = Codec([Greeted])
    >>> new = codec.encode(Greeted(name="Ana"))
    >>> codec.decode(new.type, new.state)
    Greeted(at=None, cor=None, cau=None, name='Ana')
    """

    def __init__(self, classes: Iterable[type[Event]]) -> None:
        """Raise `ValueError` if two classes share a stored name or an upcaster is missing."""
        self._encode = msgspec.msgpack.Encoder().encode
        self._names: dict[type[Event], str] = {}
        self._decoders: dict[str, Callable[[bytes], Event]] = {}
        for cls in classes:
            self._register(cls)

    def _register(self, cls: type[Event]) -> None:
        current = stored_name(cls)
        self._names[cls] = current
        for schema in range(1, cls.schema + 1):
            name = stored_name(cls, schema)
            if name in self._decoders:
                msg = f"two event classes are stored as {name!r}"
                raise ValueError(msg)
            if schema == cls.schema:
                self._decoders[name] = msgspec.msgpack.Decoder(cls).decode
                continue
            missing = [n for n in range(schema, cls.schema) if n not in cls.upcasters]
            if missing:
                msg = f"{cls.__name__} has no upcaster for schema {missing[0]}"
                raise ValueError(msg)
            self._decoders[name] = _upcasting_decoder(cls, schema)

    def encode(self, event: Event, key: IdempotencyKey | None = None) -> NewEvent:
        """Return the event as it is stored, under the class's current schema."""
        return NewEvent(self._names[type(event)], self._encode(event), key)

    def decode(self, stored_type: str, state: bytes) -> Event:
        """Return the event, upcast to the current schema.

        Raises `UnknownEventType` for a type or schema this release does not know, and
        `CorruptEvent` if the bytes do not fit.
        """
        decoder = self._decoders.get(stored_type)
        if decoder is None:
            raise UnknownEventType(stored_type)
        try:
            return decoder(state)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise CorruptEvent(stored_type, str(error)) from error

    def knows(self, stored_type: str) -> bool:
        """Tell whether `decode` would accept this stored type name."""
        return stored_type in self._decoders

    def stored_names(self, classes: Iterable[type[Event]]) -> tuple[str, ...]:
        """Return every stored name, old schemas included, for filtering in SQL."""
        return tuple(
            stored_name(cls, schema) for cls in classes for schema in range(1, cls.schema + 1)
        )

    @property
    def classes(self) -> tuple[type[Event], ...]:
        """The registered classes, in the order of registration."""
        return tuple(self._names)


def correlation_mark(correlation: str) -> bytes:
    """Return bytes that are in the state of every event of a correlation id, of any schema.

    Others may hold them, too: decode what was found.
    """
    return _mark("cor") + _mark(correlation)


_mark: Final[Callable[[str], bytes]] = msgspec.msgpack.Encoder().encode


def _upcasting_decoder(cls: type[Event], schema: int) -> Callable[[bytes], Event]:
    decode_map = msgspec.msgpack.Decoder(dict[str, Any]).decode
    steps = [cls.upcasters[n] for n in range(schema, cls.schema)]

    def decode(state: bytes) -> Event:
        fields = decode_map(state)
        try:
            for step in steps:
                fields = step(fields)
        except Exception as error:  # an upcaster trusts that its map is of its schema
            msg = f"its upcaster failed: {error!r}"
            raise msgspec.ValidationError(msg) from error
        return msgspec.convert(fields, cls)

    return decode
