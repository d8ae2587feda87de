"""Every event of the stream `gateway`: what belongs to no single person.

Bodies are sealed under the bot's key of the month, not under a person's. Wire names as in
`app.aggregates.events`.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import field

from eventstore.codec import Event
from eventstore.sealing import Sealed


class OtherRecorded(Event, frozen=True):
    """A webhook item of an unknown kind, of a channel or of a group, as it came."""

    kind: str = field(name="k")
    """`<event type>.<method>`, or `group_message`."""
    body: Sealed[bytes] = field(name="b")


class ItemRejected(Event, frozen=True):
    """A webhook item that could not be read although its neighbours could."""

    type_name: ClassVar[str] = "WebhookItemRejected"

    reason: str = field(name="y")
    """Without personal data."""
    body: Sealed[bytes] = field(name="b")


class EarlyDelete(Event, frozen=True):
    """A message was taken back that had not arrived yet, in a chat that nobody named."""

    ref: bytes = field(name="r")


class EarlyDeleteApplied(Event, frozen=True):
    """The message of an `EarlyDelete` arrived; its deletion is in the person's stream."""

    ref: bytes = field(name="r")


GATEWAY_EVENTS: tuple[type[Event], ...] = (
    OtherRecorded,
    ItemRejected,
    EarlyDelete,
    EarlyDeleteApplied,
)
"""Every class of the gateway's stream."""
