"""Recorded events as programs read them: long field names, sealed fields marked or opened.

One event as JSON, on the command line and in the API:

    position, epoch, stream, version, type, recorded_at (ISO 8601, µs, Z), key (hex or null),
    append_id (hex), state (bytes as base64; `at` and other instants in µs since 1970)

A sealed field is `{"sealed": {generation, box, digest}}`. Opened, it is its value; what cannot be
opened keeps its box and says why: `{"sealed": …, "unopened": "forgotten" | "expired" | …}`.
In every state, `at` is the sender's own time, `cor` (correlation) the run that the event belongs to
and `cau` (causation) the version, in the same stream, of the event that caused it. An event written
by a newer release keeps its stored, short names and has `"unknown_type": true`.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any, Final, get_args, get_origin, get_type_hints

import msgspec

from app.aggregates.events import TurnParked
from app.times import iso
from eventstore.codec import Codec, Event
from eventstore.errors import (
    CannotUnseal,
    Forgotten,
    KeyExpired,
    KeyMissing,
    KeyringError,
    UnknownEventType,
)
from eventstore.keyring import BOT
from eventstore.sealing import Sealed, Sealer
from eventstore.types import Epoch, Recorded, StreamName

Json = dict[str, object]

USER_PREFIX: Final = "user/"
_REASONS: Final[dict[type[Exception], str]] = {
    Forgotten: "forgotten",
    KeyExpired: "expired",
    KeyMissing: "key missing",
    CannotUnseal: "cannot unseal",
}
_MARKED: Final = "sealed"
_SEALED_AS: Final[dict[tuple[type[Event], str], str]] = {(TurnParked, "apology"): "reply"}
"""Fields that are sealed under another name than their own: it is part of the seal."""
_PLAIN: Final = frozenset({str, int, bytes, bool, type(None)})


class Presenter:
    """Turns recorded events into JSON values and into lines. Without a sealer nothing is opened."""

    def __init__(self, codec: Codec, epoch: Epoch, sealer: Sealer | None = None) -> None:
        """Say which epoch the events are read in."""
        self._codec = codec
        self._epoch = epoch
        self._sealer = sealer
        self.unopened: Counter[str] = Counter()
        """Sealed fields that could not be opened, by reason."""

    def as_json(self, event: Recorded) -> Json:
        """Return one event as described above."""
        state, unknown = self.state_of(event)
        line: Json = {
            "position": event.position,
            "epoch": self._epoch,
            "stream": event.stream,
            "version": event.version,
            "type": event.type,
            "recorded_at": iso(event.recorded_at),
            "key": None if event.key is None else event.key.hex(),
            "append_id": event.append_id.hex(),
            "state": state,
        }
        return line | {"unknown_type": True} if unknown else line

    def state_of(self, event: Recorded) -> tuple[Json, bool]:
        """Return an event's fields, and whether its type is one that this release knows not."""
        try:
            decoded = self._codec.decode(event.type, event.state)
        except UnknownEventType:
            return msgspec.msgpack.decode(event.state, type=dict[str, Any]), True
        return {
            name: self.value_of(
                event.stream,
                _SEALED_AS.get((type(decoded), name), name),
                getattr(decoded, name),
                kind,
            )
            for name, kind in _fields_of(type(decoded))
        }, False

    def value_of(self, stream: StreamName, name: str, value: object, kind: type[Any]) -> object:
        """Return a field of a stream as JSON has it; `kind` is what is in it if it is sealed."""
        if not isinstance(value, Sealed):
            return plain(value)
        if self._sealer is None:
            return {_MARKED: plain(value)}
        try:
            opened = self._sealer.open(owner_of(stream), stream, name, value, kind)
        except (Forgotten, KeyExpired, KeyMissing, CannotUnseal) as error:
            reason = reason_of(error)
            self.unopened[reason] += 1
            return {_MARKED: plain(value), "unopened": reason}
        return plain(opened)


def reason_of(error: KeyringError) -> str:
    """Return why something sealed could not be opened, in a word or two."""
    return _REASONS.get(type(error), "cannot unseal")


def veiled(value: object) -> str | None:
    """Return what stands for a field that is still sealed, and why; None if it is opened."""
    match value:
        case {"sealed": _, **reason}:
            return f"«{reason.get('unopened', 'sealed')}»"
        case _:
            return None


def plain(value: object) -> object:
    """Return a struct as a map of its attribute names, recursively; everything else as it is."""
    if type(value) in _PLAIN:  # most of them
        return value
    match value:
        case msgspec.Struct():
            return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
        case tuple() | list():
            return [plain(item) for item in value]
        case _:
            return value


@cache
def _fields_of(cls: type[Event]) -> tuple[tuple[str, Any], ...]:
    """Return a class's own fields, then the common ones; each with what is sealed in it."""
    hints = get_type_hints(cls)
    common = Event.__struct_fields__
    own = [name for name in cls.__struct_fields__ if name not in common]
    return tuple((name, _sealed_type(hints[name])) for name in (*own, *common))


def _sealed_type(hint: object) -> Any:  # noqa: ANN401 - a type, as an annotation spells it
    for choice in (hint, *get_args(hint)):
        if get_origin(choice) is Sealed:
            return get_args(choice)[0]
    return None


def owner_of(stream: StreamName) -> str:
    """Return whose keys seal what is in a stream: a person's, or else the bot's."""
    return stream.removeprefix(USER_PREFIX) if stream.startswith(USER_PREFIX) else BOT
