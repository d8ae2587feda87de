"""What the engine asks of a log, and how rows become what the models want.

SQL passes over what nobody wants, until nearly everything is wanted: then it costs more to compare
each row's type than to bring a few in vain.

A row is decoded once, however many models want it. Types that a *newer* release may have written
of a class that is wanted here (`MessageReceived@2`) are asked for as well: they cannot be decoded,
and passing over them in silence would make the counts wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from app.projections.model import ReadModel, Seen
from eventstore.codec import Codec, Event, stored_name
from eventstore.errors import EventStoreError
from eventstore.store import LogReader
from eventstore.types import Position

NEWER_SCHEMAS: Final = 3
"""How many schemas after the one we know are looked for. A release reads a schema before any
writes it, so one would do."""

ScannedRow = tuple[int, int, str, int, bytes]
"""Position, number of the stream, stored type, recorded_at, state."""


def stored_names(model: ReadModel) -> tuple[str, ...]:
    """Return every stored type that a model is asked to take, newer schemas included."""
    return tuple(
        stored_name(cls, schema)
        for cls in model.events
        for schema in range(1, cls.schema + NEWER_SCHEMAS + 1)
    )


class Poison(Exception):
    """An event that cannot be decoded."""

    def __init__(self, position: int, kind: type[Event], reason: str) -> None:
        self.position = Position(position)
        self.kind = kind
        super().__init__(f"the event at {position} cannot be read: {reason}")


_Decode = Callable[[bytes], Event] | None
_Route = tuple[type[Event], _Decode, tuple[Callable[[Seen], None], ...]]


class _Routes(dict[str, _Route]):
    """Routes of a page by stored type, made when they are first asked for."""

    def __init__(self, make: Callable[[str], _Route]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, kind: str) -> _Route:
        route = self[kind] = self._make(kind)
        return route


class Reading:
    """How the rows of one group of models are read: which types, and whose each one is."""

    def __init__(self, models: Iterable[ReadModel]) -> None:
        """Prepare for these models, which share a pass over the log."""
        self._models = tuple(models)
        self._wanted: dict[str, tuple[type[Event], _Decode, tuple[int, ...]]] = {}
        for cls in dict.fromkeys(cls for model in self._models for cls in model.events):
            self._want(cls)
        self.types = tuple(self._wanted)
        self._dense = False

    def _want(self, cls: type[Event]) -> None:
        codec = Codec([cls])
        readers = tuple(i for i, model in enumerate(self._models) if cls in model.events)
        unread = all(cls in self._models[i].unread for i in readers)
        for schema in range(1, cls.schema + NEWER_SCHEMAS + 1):
            name = stored_name(cls, schema)
            decode: _Decode = None
            if schema > cls.schema or (not unread and schema < cls.schema):
                decode = _by_codec(codec, name)
            elif not unread:
                decode = msgspec.msgpack.Decoder(cls).decode
            self._wanted[name] = (cls, decode, readers)

    def scan(self, log: LogReader, after: Position, up_to: Position) -> list[ScannedRow]:
        """Return the rows of these positions that are wanted, perhaps a few more."""
        if self._dense:
            return log.scan(after=after, up_to=up_to)
        rows = log.scan(after=after, up_to=up_to, types=self.types)
        self._dense = _is_most(len(rows), up_to - after)
        return rows

    def read(self, rows: Sequence[ScannedRow], names: Mapping[int, str]) -> list[list[Seen]]:
        """Return each model's own batch, in the order of the models.

        Raises `Poison` for the first row that cannot be decoded.
        """
        batches: list[list[Seen]] = [[] for _ in self._models]
        unwanted: list[Seen] = []

        def route(kind: str) -> _Route:
            if kind not in self._wanted:
                return Event, None, (unwanted.append,)
            cls, decode, readers = self._wanted[kind]
            return cls, decode, tuple(batches[i].append for i in readers)

        routes = _Routes(route)
        position, kind = 0, ""
        try:
            for position, number, kind, at, state in rows:
                cls, decode, appends = routes[kind]
                event = None if decode is None else decode(state)
                seen = (position, names[number], at, cls, event)
                for append in appends:
                    append(seen)
        except (EventStoreError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Poison(position, routes[kind][0], f"{kind}: {error}") from error
        self._dense = self._dense and _is_most(len(rows) - len(unwanted), len(rows))
        return batches


def _is_most(wanted: int, passed: int) -> bool:
    return wanted * 8 >= passed * 7


def _by_codec(codec: Codec, name: str) -> Callable[[bytes], Event]:
    def decode(state: bytes) -> Event:
        return codec.decode(name, state)

    return decode
