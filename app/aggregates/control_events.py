"""Every event of the control log: what operators did, and how bots were configured.

The control log belongs to the installation, not to a bot: no restore of a bot rewinds it. Nothing
in it is personal: people are pseudonyms. Wire names as in `app.aggregates.events`.
"""

from __future__ import annotations

from msgspec import field

from eventstore.codec import Event


class OperatorActed(Event, frozen=True):
    """An operator asked for something. Written before it is done: nothing is done unrecorded."""

    action: str = field(name="a")
    """The command: `turns drop`, `projections rebuild`, …"""
    by: str = field(name="o")
    """User of the operating system and machine: `ana@host`."""
    bot: str = field(name="b", default="")
    why: str = field(name="w", default="")
    about: tuple[str, ...] = field(name="t", default=())
    """What it was done to: pseudonyms, read models."""


class BotOpened(Event, frozen=True):
    """A node opened a bot with another configuration, or another release, than the last time."""

    bot: str = field(name="b")
    release: str = field(name="r")
    node: str = field(name="n")
    fingerprint: bytes = field(name="f")
    """Of all settings of the bot but secrets and the node's own."""
    settings: dict[str, str] = field(name="s", default={})
    """Those that are not at their defaults; addresses without what opens them."""


CONTROL_EVENTS: tuple[type[Event], ...] = (OperatorActed, BotOpened)
"""Every class of the control log."""
