"""Who may come in: the aggregate of the control log's stream `keys`.

A key is known by the SHA-256 of its secret, which has 256 bits of its own: nothing to guess, so
nothing to stretch. It is shown once, when it is made.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec
from msgspec.structs import replace

from app.aggregates.access_events import KeyCreated, KeyRevoked, KeyUsed
from app.aggregates.answers import Done, Nothing, Outcome
from app.aggregates.stream import Aggregate
from eventstore.codec import Event
from eventstore.types import Micros, StreamName, Version

KEYS: Final = StreamName("keys")

Role = Literal["auditor", "operator", "analyst", "hook", "webhook"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

USED_EVERY: Final = 3_600_000_000
"""µs between two records of a key's use."""


class AccessKey(msgspec.Struct, frozen=True):
    """One key, by its id. Instants are µs of the control log's time."""

    id: str
    digest: bytes
    role: Role
    bot: str = ""
    """The one bot that it is good for; empty: all of the installation."""
    expires_at: int | None = None
    created_at: int = 0
    by: str = ""
    name: str = ""
    revoked_at: int | None = None
    used_at: int | None = None
    """The last use, to the hour."""

    def is_good(self, now: int) -> bool:
        """Tell whether the key opens anything at an instant."""
        expired = self.expires_at is not None and self.expires_at <= now
        return self.revoked_at is None and not expired


class AccessState(msgspec.Struct, frozen=True):
    """Every key that ever was, the oldest first."""

    keys: tuple[AccessKey, ...] = ()

    def find(self, key_id: str) -> AccessKey | None:
        """Return the key of an id."""
        return next((key for key in self.keys if key.id == key_id), None)


class Access(Aggregate[AccessState]):
    """Decides about keys."""

    __slots__ = ()

    def __init__(
        self,
        stream: StreamName = KEYS,
        state: AccessState = AccessState(),  # noqa: B008 - frozen
        version: Version = Version(0),  # noqa: B008 - an int
    ) -> None:
        super().__init__(stream, state, version)

    def create(self, event: KeyCreated, *, now: Micros) -> Done:
        """Make a key."""
        return self._record(event, now)

    def revoke(self, key_id: str, *, by: str, why: str, now: Micros) -> Outcome:
        """Take a key back for good; nothing if there is none, or it is revoked already."""
        key = self.state.find(key_id)
        if key is None or key.revoked_at is not None:
            return Nothing()
        return self._record(KeyRevoked(key=key_id, by=by, why=why), now)

    def use(self, key_id: str, *, now: Micros) -> Outcome:
        """Record that a key was used, once an hour."""
        key = self.state.find(key_id)
        if key is None or (key.used_at is not None and now - key.used_at < USED_EVERY):
            return Nothing()
        return self._record(KeyUsed(key=key_id), now)

    def _evolve(self, event: Event, version: Version, now: Micros) -> AccessState:
        return evolve(self.state, event, version, now)


def evolve(state: AccessState, event: Event, _version: int, at: int) -> AccessState:
    """Return the state after `event`. Total."""
    match event:
        case KeyCreated():
            key = AccessKey(
                id=event.key,
                digest=event.digest,
                role=event.role,
                bot=event.bot,
                expires_at=event.expires_at,
                created_at=at,
                by=event.by,
                name=event.name,
            )
            return AccessState((*state.keys, key))
        case KeyRevoked(key=key_id):
            return _changed(state, key_id, revoked_at=at)
        case KeyUsed(key=key_id):
            return _changed(state, key_id, used_at=at)
        case _:
            return state


def _changed(state: AccessState, key_id: str, **changes: int) -> AccessState:
    return AccessState(
        tuple(replace(key, **changes) if key.id == key_id else key for key in state.keys)
    )
