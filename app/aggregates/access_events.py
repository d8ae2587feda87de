"""Events of the control log's stream `keys`: who may come in. Wire names as in `events`."""

from __future__ import annotations

from typing import Literal

from msgspec import field

from eventstore.codec import Event


class KeyCreated(Event, frozen=True):
    """A bearer key was made. Its secret is not here, only the secret's SHA-256."""

    key: str = field(name="k")
    """Its id, the part before the dot."""
    digest: bytes = field(name="d")
    role: Literal["auditor", "operator", "analyst", "hook", "webhook"] = field(name="r")
    by: str = field(name="o")
    bot: str = field(name="b", default="")
    name: str = field(name="n", default="")
    expires_at: int | None = field(name="e", default=None)


class KeyRevoked(Event, frozen=True):
    """A key opens nothing any more."""

    key: str = field(name="k")
    by: str = field(name="o")
    why: str = field(name="w", default="")


class KeyUsed(Event, frozen=True):
    """A key was used; recorded once an hour at most."""

    key: str = field(name="k")


ACCESS_EVENTS: tuple[type[Event], ...] = (KeyCreated, KeyRevoked, KeyUsed)
"""Every class of the stream `keys`."""
