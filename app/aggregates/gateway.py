"""What the gateways say that belongs to no single person: the aggregate of the stream `gateway`.

It decides little: it keeps what came, counts it, and remembers deletions that came before their
message and named no chat. It knows no time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from app.aggregates import gateway_events as e
from app.aggregates.answers import Done, Nothing, Outcome
from app.aggregates.shape import shape_of
from app.aggregates.stream import Aggregate
from eventstore.codec import Event
from eventstore.sealing import Sealed
from eventstore.types import IdempotencyKey, Micros, StreamName, Version

GATEWAY_STREAM: Final = StreamName("gateway")

MAX_KINDS = 100
"""Kinds that are counted by name; all further ones are counted as `MORE`."""

MORE = "(more)"
REJECTED = "(rejected)"

SHELVES = 250
MAX_ON_SHELF = 40
"""Early refs on one shelf; the oldest goes first: 10,000 in all."""

Shelf = tuple[bytes, ...]
_NO_TIME = Micros(0)


class GatewayState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Counters and early deletes, bounded whatever the history."""

    counts: dict[str, int] = {}
    """Items per kind. Replaced, never changed."""
    early: tuple[Shelf, ...] = ()
    """Refs of early deletes, spread over shelves by their own bytes; () before the first.

    A ref is an HMAC, so shelves fill evenly, and neither a look nor a change costs more than
    one of them."""


BLANK: Final = GatewayState()
"""Nothing came yet."""

STATE_RULES: Final = 1
STATE_SHAPE: Final = shape_of(GatewayState, STATE_RULES)
"""Kept with a snapshot: another shape means replay."""

pack: Final[Callable[[GatewayState], bytes]] = msgspec.msgpack.Encoder().encode
"""Encode a state for a snapshot."""

unpack: Final = msgspec.msgpack.Decoder(GatewayState).decode
"""Decode a snapshot's state. Raises `msgspec.MsgspecError` for bytes of another shape."""


def evolve(state: GatewayState, event: Event, version: int, recorded_at: int) -> GatewayState:
    """Return the state after `event`. Total, like a user's."""
    return _EVOLVE[type(event)](state, event, version, recorded_at)


def _other(s: GatewayState, event: e.OtherRecorded, _version: int, _at: int) -> GatewayState:
    return _counted(s, event.kind)


def _rejected(s: GatewayState, _event: e.ItemRejected, _version: int, _at: int) -> GatewayState:
    return _counted(s, REJECTED)


def _counted(s: GatewayState, kind: str) -> GatewayState:
    name = kind if kind in s.counts or len(s.counts) < MAX_KINDS else MORE
    return replace(s, counts={**s.counts, name: s.counts.get(name, 0) + 1})


def _early(s: GatewayState, event: e.EarlyDelete, _version: int, _at: int) -> GatewayState:
    others = [ref for ref in _shelf(s, event.ref) if ref != event.ref]
    return _put(s, event.ref, (*others[1 - MAX_ON_SHELF :], event.ref))


def _applied(s: GatewayState, event: e.EarlyDeleteApplied, _version: int, _at: int) -> GatewayState:
    return _put(s, event.ref, tuple([ref for ref in _shelf(s, event.ref) if ref != event.ref]))


def is_early(state: GatewayState, ref: bytes) -> bool:
    """Tell whether a message was taken back before it came."""
    return bool(state.early) and ref in _shelf(state, ref)


def _number(ref: bytes) -> int:
    return int.from_bytes(ref[:4]) % SHELVES


def _shelf(s: GatewayState, ref: bytes) -> Shelf:
    return s.early[_number(ref)] if s.early else ()


def _put(s: GatewayState, ref: bytes, shelf: Shelf) -> GatewayState:
    number, shelves = _number(ref), s.early or ((),) * SHELVES
    return replace(s, early=(*shelves[:number], shelf, *shelves[number + 1 :]))


_EVOLVE: Final[dict[type[Event], Callable[[GatewayState, Any, int, int], GatewayState]]] = {
    e.OtherRecorded: _other,
    e.ItemRejected: _rejected,
    e.EarlyDelete: _early,
    e.EarlyDeleteApplied: _applied,
}


class Gateway(Aggregate[GatewayState]):
    """The gateway's leftovers, ready to be added to. Everything here is a fact."""

    __slots__ = ()

    def __init__(
        self,
        stream: StreamName = GATEWAY_STREAM,
        state: GatewayState = BLANK,
        version: Version = Version(0),  # noqa: B008 - an int
        *,
        read_only: bool = False,
    ) -> None:
        super().__init__(stream, state, version, read_only=read_only)

    def record_other(
        self, *, kind: str, body: Sealed[bytes], key: IdempotencyKey | None = None
    ) -> Done:
        """Keep an item as it came, once for each `key`."""
        return self._record(e.OtherRecorded(kind=kind, body=body), _NO_TIME, key)

    def reject_item(
        self, *, reason: str, body: Sealed[bytes], key: IdempotencyKey | None = None
    ) -> Done:
        """Keep an item that cannot be read, once for each `key`. `reason`: no personal data."""
        return self._record(e.ItemRejected(reason=reason, body=body), _NO_TIME, key)

    def remember_early_delete(self, ref: bytes) -> Outcome:
        """Remember that a message, not here yet, was taken back."""
        if self.is_early(ref):
            return Nothing()
        return self._record(e.EarlyDelete(ref=ref), _NO_TIME)

    def apply_early_delete(self, ref: bytes) -> Outcome:
        """Forget an early delete: the person's stream holds it now."""
        if not self.is_early(ref):
            return Nothing()
        return self._record(e.EarlyDeleteApplied(ref=ref), _NO_TIME)

    def is_early(self, ref: bytes) -> bool:
        """Tell whether the message was taken back before it came."""
        return is_early(self.state, ref)

    def _evolve(self, event: Event, version: Version, now: Micros) -> GatewayState:
        return evolve(self.state, event, version, now)
