"""What the gateways tell us, normalised: one webhook body gives many facts.

Facts hold personal data in clear. They live in memory for the length of one request, are
sealed before any decision, and are never stored, logged or put in an error.
Times are integer microseconds (UTC); ids are the gateway's own strings.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import msgspec

from app.aggregates.events import Media

Gateway = Literal["whapi", "meta"]


class Person(msgspec.Struct, frozen=True):
    """How the gateway names somebody: digits of a phone number, a `lid`, or both."""

    phone: str | None = None
    lid: str | None = None


class MessageFact(msgspec.Struct, frozen=True):
    """A message in a one-to-one chat, in either direction.

    `origin`: `person` wrote to the bot; `human` agent wrote from the bot's own phone or web;
    `bot`: the echo of an API send.
    """

    id: str
    person: Person
    chat_id: str
    at: int
    kind: str
    origin: Literal["person", "human", "bot"]
    text: str = ""
    name: str = ""
    quoted_id: str = ""
    media: Media | None = None
    answerable: bool = True
    raw: bytes = b""


class EditFact(msgspec.Struct, frozen=True):
    """A message changed; `id` is the original's, `message` holds the new state."""

    id: str
    message: MessageFact


class DeleteFact(msgspec.Struct, frozen=True):
    """Messages were taken back. The gateway may not say in which chat (`person` is None)."""

    ids: tuple[str, ...]
    person: Person | None = None


class StatusFact(msgspec.Struct, frozen=True):
    """A sent message is pending, sent, delivered, read, played, failed or deleted."""

    id: str
    status: str
    person: Person | None
    at: int


class PresenceFact(msgspec.Struct, frozen=True):
    """Somebody is typing, recording or online."""

    person: Person
    presence: str


class OtherFact(msgspec.Struct, frozen=True):
    """What belongs to no single person, or is of no known kind: kept sealed, as it came.

    `kind` is `<event type>.<method>` or `group_message`; `id` deduplicates where there is one.
    """

    kind: str
    raw: bytes
    id: str = ""


class RejectedFact(msgspec.Struct, frozen=True):
    """One item that cannot be read although its neighbours can. `reason` holds no personal data."""

    reason: str
    raw: bytes


Fact = MessageFact | EditFact | DeleteFact | StatusFact | PresenceFact | OtherFact | RejectedFact


class Delivery(msgspec.Struct, frozen=True):
    """One webhook body, read."""

    gateway: Gateway
    channel: str
    facts: tuple[Fact, ...]


class Odd(NamedTuple):
    """How many facts of a delivery were recorded as something that no turn will look at."""

    rejected: int
    """Items that could not be read, or not be recorded as what they are."""
    other: int
    """Items that belong to no single person, or are of no known kind."""


NOTHING_ODD: Final = Odd(0, 0)
