"""Every event of one user's stream, `user/<pseudonym>`.

Wire names are one to three letters and are never reused; see `eventstore.codec` for the rules
and `tests/golden/` for the bytes. Personal data travels in `Sealed` fields only. A `ref` is
the HMAC (16 bytes) of a gateway's message id: it joins edits, deletes, echoes and statuses to
their message without holding the id, which contains a phone number. `thread` is an OpenAI
conversation id, `response` a response id, `run` our own id of one attempt.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import field

from eventstore.codec import Event
from eventstore.sealing import Sealed

ResetReason = Literal[
    "first_time",
    "thread_changed",
    "user_not_found",
    "gone",
    "empty",
    "expired",
    "cleanup",
    "manual",
    "restored",
]
CancelReason = Literal["orphaned", "thread_busy", "superseded", "operator"]
ParkReason = Literal["failed", "orphaned"]
Presence = Literal["typing", "recording"]
Adopted = Literal["", "echo", "status", "list"]
DeliveryStatus = Literal["pending", "sent", "delivered", "read", "played", "failed", "deleted"]


class Media(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file that came with a message, as the gateway named it."""

    id: str = field(name="i")
    mime: str = field(name="m", default="")
    size: int = field(name="z", default=0)
    sha256: str = field(name="h", default="")
    link: str = field(name="l", default="")
    file_name: str = field(name="n", default="")
    seconds: float = field(name="s", default=0)


class Content(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a person, or a human agent, wrote. Always sealed."""

    message_id: str = field(name="i")
    chat_id: str = field(name="c")
    text: str = field(name="t", default="")
    name: str = field(name="n", default="")
    quoted_id: str = field(name="q", default="")
    media: Media | None = field(name="m", default=None)
    raw: bytes = field(name="r", default=b"")
    """The item's JSON as it came, for kinds that this release does not read."""


class Profile(msgspec.Struct, frozen=True, omit_defaults=True):
    """Name and labels as the gateway shows them. Always sealed."""

    name: str = field(name="n", default="")
    labels: tuple[str, ...] = field(name="l", default=())
    user_name: str = field(name="u", default="")
    """What they call themselves, as an import tells it: else it comes with their messages."""

    @property
    def shown_name(self) -> str:
        """The name to show where there is room for one: theirs, if the address book has none."""
        return self.name or self.user_name


class Reply(msgspec.Struct, frozen=True):
    """The bot's answer, split into the parts that are sent one by one. Always sealed."""

    parts: tuple[str, ...] = field(name="p")


class SentMessage(msgspec.Struct, frozen=True):
    """What the gateway accepted: its message id. Always sealed."""

    message_id: str = field(name="i")


class UserRegistered(Event, frozen=True):
    """The first message, status or presence of a person we did not know."""

    gateway: str = field(name="gw")
    chat: Sealed[str] = field(name="ch")


class ProfileUpdated(Event, frozen=True):
    """Name or labels changed at the gateway."""

    profile: Sealed[Profile] = field(name="p")


class MessageReceived(Event, frozen=True):
    """A person wrote to the bot. Key: HMAC(gateway, channel, message id)."""

    ref: bytes = field(name="r")
    kind: str = field(name="k")
    content: Sealed[Content] = field(name="c")
    answerable: bool = field(name="a", default=True)
    """False for what is recorded and never answered: system noise, reactions, votes."""


class MessageEdited(Event, frozen=True):
    """A person changed a message. Key: HMAC(id, its new state)."""

    ref: bytes = field(name="r")
    content: Sealed[Content] = field(name="c")
    early: bool = field(name="e", default=False)
    """True if the message itself had not arrived yet."""


class MessageDeleted(Event, frozen=True):
    """A person took a message back. Key: HMAC(id, "deleted")."""

    ref: bytes = field(name="r")
    early: bool = field(name="e", default=False)


class TypingObserved(Event, frozen=True):
    """A person is typing or recording while a message waits; at most one every 3 s."""

    presence: Presence = field(name="p", default="typing")


class HumanMessageSent(Event, frozen=True):
    """A human agent wrote from the phone or the web (`from_me`, not our send). Never answered."""

    ref: bytes = field(name="r")
    content: Sealed[Content] = field(name="c")


class MessageImported(Event, frozen=True):
    """A message of before Hilo, written at `at`. Never answered. Key: HMAC of what and when."""

    ref: bytes = field(name="r")
    kind: str = field(name="k")
    content: Sealed[Content] = field(name="c")
    sender: Literal["person", "business"] = field(name="f", default="person")
    """Whether a human or a bot wrote for the business, an export does not tell."""


class MessageEchoed(Event, frozen=True):
    """The gateway showed one of the bot's own sends. Key: HMAC("echo", id)."""

    ref: bytes = field(name="r")
    content: Sealed[Content] = field(name="c")


class MessageStatusChanged(Event, frozen=True):
    """A sent message is on its way. Key: HMAC(id, status). Order is not guaranteed."""

    ref: bytes = field(name="r")
    status: str = field(name="s")


class ThreadStarted(Event, frozen=True):
    """A conversation was created at OpenAI; the token count starts at 0."""

    thread: str = field(name="t")
    reason: ResetReason = field(name="y")
    last_item: str | None = field(name="li", default=None)
    """Id of its newest item, if it was filled with what was said before."""


class ThreadReset(Event, frozen=True):
    """The conversation was left, or its count set to 0. `left_behind` tokens were counted on it."""

    thread: str | None = field(name="t")
    reason: ResetReason = field(name="y")
    left_behind: int = field(name="l", default=0)


class RunStarted(Event, frozen=True):
    """A turn is claimed: the only lock there is. `cor` is the run."""

    run: str = field(name="u")
    node: str = field(name="n")
    incarnation: str = field(name="i")
    attempt: int = field(name="a")
    """1 for the first try of this turn; counts failures and orphaned runs alike."""
    up_to: int = field(name="v")
    """Stream version of the last message that this run answers."""


class TurnTakenOver(Event, frozen=True):
    """Whoever held a run, or the delivery of its reply, is dead: another node holds it now."""

    run: str = field(name="u")
    node: str = field(name="n")
    incarnation: str = field(name="i")
    before: str = field(name="b")
    """The incarnation that held it."""


class RunSubmitted(Event, frozen=True):
    """OpenAI accepted the run and named its response."""

    run: str = field(name="u")
    response: str = field(name="x")
    thread: str | None = field(name="t", default=None)
    """The conversation that the response is written to."""


class RunCompleted(Event, frozen=True):
    """The answer is here; in the same append as its `TokensIncremented`."""

    run: str = field(name="u")
    response: str = field(name="x")
    reply: Sealed[Reply] = field(name="p")
    parts: int = field(name="n")
    last_item: str | None = field(name="li", default=None)
    """Id of the conversation's newest item: what recovery trims back to."""


class RunFailed(Event, frozen=True):
    """One attempt failed. The turn is due again at `retry_at` (µs), or ends with `TurnParked`."""

    run: str = field(name="u")
    code: str = field(name="c")
    retry_at: int | None = field(name="ra", default=None)
    response: str | None = field(name="x", default=None)


class RunCancelled(Event, frozen=True):
    """The run ended without an answer; its turn is due again, not before `retry_at` (µs).

    An orphaned run counts as an attempt of its turn; the other reasons do not.
    """

    run: str = field(name="u")
    reason: CancelReason = field(name="y")
    retry_at: int | None = field(name="ra", default=None)


class TokensIncremented(Event, frozen=True):
    """OpenAI reported usage for a run. Counts only if `thread` is still current."""

    thread: str = field(name="t")
    run: str = field(name="u")
    total: int = field(name="n")
    input: int = field(name="in", default=0)
    output: int = field(name="o", default=0)
    cached: int = field(name="ca", default=0)
    reasoning: int = field(name="re", default=0)
    model: str = field(name="m", default="")


class UsageUnknown(Event, frozen=True):
    """A run may have been billed and nobody can be asked how much."""

    run: str = field(name="u")
    thread: str | None = field(name="t", default=None)


class DeliveryStarted(Event, frozen=True):
    """Part `part` (from 0) of a reply is about to be handed to the gateway.

    `deadline` (µs) is when the send has surely been given up: a successor waits for it.
    """

    run: str = field(name="u")
    part: int = field(name="q")
    deadline: int = field(name="d")
    attempt: int = field(name="a", default=1)


class MessageSent(Event, frozen=True):
    """The gateway accepted a part. Key: HMAC(gateway, channel, message id), as for received."""

    run: str = field(name="u")
    part: int = field(name="q")
    ref: bytes = field(name="r")
    sent: Sealed[SentMessage] = field(name="s")
    adopted: Adopted = field(name="ad", default="")
    """How recovery found a part that an earlier process had sent; empty: our own send."""


class DeliveryFailed(Event, frozen=True):
    """The gateway refused a part and it was surely not sent (a 4xx, or connection refused)."""

    run: str = field(name="u")
    part: int = field(name="q")
    code: str = field(name="c")
    retry_at: int | None = field(name="ra", default=None)
    """When the part is tried again (µs); none: given up."""


class DeliveryUncertain(Event, frozen=True):
    """Nobody can say whether a part was sent. It is not sent again."""

    run: str = field(name="u")
    part: int = field(name="q")


class TurnParked(Event, frozen=True):
    """The turn is given up until an operator retries or drops it; one apology is sent.

    It takes the messages up to version `up_to` with it; later ones make a turn of their own.
    """

    reason: ParkReason = field(name="y")
    attempts: int = field(name="a")
    up_to: int = field(name="v")
    run: str = field(name="u", default="")
    """Id under which the apology is delivered; empty: no apology (it was sent before)."""
    apology: Sealed[Reply] | None = field(name="p", default=None)
    parts: int = field(name="n", default=1)


class TurnRetried(Event, frozen=True):
    """An operator made a parked turn due again."""

    by: str = field(name="b")
    why: str = field(name="w", default="")


class TurnDropped(Event, frozen=True):
    """An operator closed a parked turn without an answer."""

    by: str = field(name="b")
    why: str = field(name="w", default="")


class ActivityRecorded(Event, frozen=True):
    """The delayed view of M003: last activity and token count move together."""

    last_activity: int = field(name="la")
    tokens: int = field(name="n")
    thread: str | None = field(name="t", default=None)


USER_EVENTS: tuple[type[Event], ...] = (
    UserRegistered,
    ProfileUpdated,
    MessageReceived,
    MessageEdited,
    MessageDeleted,
    TypingObserved,
    HumanMessageSent,
    MessageImported,
    MessageEchoed,
    MessageStatusChanged,
    ThreadStarted,
    ThreadReset,
    RunStarted,
    TurnTakenOver,
    RunSubmitted,
    RunCompleted,
    RunFailed,
    RunCancelled,
    TokensIncremented,
    UsageUnknown,
    DeliveryStarted,
    MessageSent,
    DeliveryFailed,
    DeliveryUncertain,
    TurnParked,
    TurnRetried,
    TurnDropped,
    ActivityRecorded,
)
"""Every class of a user's stream, in the order of a conversation."""
