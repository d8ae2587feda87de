"""What a turn needs from the outside world: a model provider and a messenger.

`app/gateways/` implements these ports; tests talk to the same implementations over real HTTP
against `app/simulators/`. No call retries by itself: each attempt is an event.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Literal, Protocol

import msgspec


class Usage(msgspec.Struct, frozen=True):
    """Tokens as the provider reported them, never an estimate."""

    total: int
    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0


class Submitted(msgspec.Struct, frozen=True):
    """The provider accepted the run: the first sign of its response id."""

    response: str


class Answer(msgspec.Struct, frozen=True):
    """A response that has come to its end.

    `status` is `completed`, `incomplete`, `failed` or `cancelled`; usage may come with each.
    `last_item` is the newest conversation item that the response wrote, if known.
    """

    response: str
    status: Literal["completed", "incomplete", "failed", "cancelled"]
    text: str = ""
    usage: Usage | None = None
    model: str = ""
    last_item: str | None = None
    code: str = ""


class Running(msgspec.Struct, frozen=True):
    """A retrieved response that is still queued or in progress."""

    response: str


Role = Literal["user", "assistant"]


class Said(msgspec.Struct, frozen=True):
    """One message of an earlier conversation, by the person or by the business."""

    role: Role
    text: str


class ProviderError(Exception):
    """The provider could not be used. `code` is short, stable and without personal data."""

    def __init__(
        self, code: str, *, retry_after: float | None = None, billed: bool = False
    ) -> None:
        self.code = code
        self.retry_after = retry_after
        """Seconds the provider asked us to wait, if it did."""
        self.billed = billed
        """True if the request may have been carried out although we got no answer."""
        super().__init__(code)


class ThreadGone(ProviderError):
    """The conversation does not exist at the provider (any more)."""


class ThreadBusy(ProviderError):
    """Another response is active in the conversation (`conversation_locked`)."""


class RateLimited(ProviderError):
    """429: honour `retry_after`."""


class Refused(ProviderError):
    """The provider says the request itself is wrong (400, 401, 403, 422): retrying is useless."""


class Unreachable(ProviderError):
    """Connection errors, time-outs, 5xx, cut streams, malformed answers."""


class ResponseGone(ProviderError):
    """The response to retrieve does not exist."""


class ModelProvider(Protocol):
    """OpenAI, as far as a turn needs it."""

    async def start_thread(self, metadata: dict[str, str]) -> str:
        """Create an empty conversation and return its id."""

    async def fill_thread(self, thread: str, history: Sequence[Said]) -> str | None:
        """Put what was said before into a conversation, oldest first; return the last item's id.

        Raises `ProviderError`; some of it may be there then.
        """

    def run(
        self, *, thread: str, texts: tuple[str, ...], run: str, user: str
    ) -> AsyncGenerator[Submitted | Answer, None]:
        """Answer `texts` in the conversation: yields `Submitted` once, then one `Answer`.

        `run` travels as metadata, `user` (a pseudonym) as the safety identifier. Raises
        `ProviderError`; after `Submitted` its `billed` is True. Iterate it within
        `contextlib.aclosing`: a caller that leaves early gives the connection back at once.
        """

    async def retrieve(self, response: str) -> Answer | Running:
        """Return what became of a response. Raises `ResponseGone`."""

    async def cancel(self, response: str) -> None:
        """Cancel a background response; one that cannot be cancelled is left alone."""

    async def items_after(self, thread: str, item: str | None) -> tuple[str, ...]:
        """Return ids of the conversation's items after `item` (all if None), oldest first.

        Raises `ThreadGone`; `Refused` if the conversation does not hold `item` (any more).
        """

    async def is_empty(self, thread: str) -> bool:
        """Tell whether the conversation holds no item at all. Raises `ThreadGone`."""

    async def delete_item(self, thread: str, item: str) -> None:
        """Delete one item; one that is gone already is success."""


class SentPart(msgspec.Struct, frozen=True):
    """A message that the gateway's list shows as sent by the bot's number."""

    id: str
    text: str
    at: int


class SendError(Exception):
    """A part was not accepted. `code` is short, stable and without personal data."""

    def __init__(self, code: str, *, retry_after: float | None = None) -> None:
        self.code = code
        self.retry_after = retry_after
        super().__init__(code)


class SendRefused(SendError):
    """The gateway said no for good (400, 401, 402, 403, 404, 413, 415): surely not sent."""


class SendDeferred(SendError):
    """429, or the connection could not even be opened: surely not sent; try again later."""


class SendOutcomeUnknown(SendError):
    """The request left and no clear answer came back (time-out, cut, 5xx): may be sent."""


class Chat(msgspec.Struct, frozen=True):
    """What the gateway knows of a chat; an empty name: it shows none."""

    name: str
    labels: tuple[str, ...]


class Messenger(Protocol):
    """A WhatsApp gateway, as far as a turn needs it."""

    name: str
    channel: str

    async def send_text(
        self, chat: str, text: str, *, quoted: str = "", still: Callable[[], bool] | None = None
    ) -> str:
        """Send one text and return the gateway's message id. Raises `SendError`.

        `still()` is asked right before the first byte leaves, since a process may be stopped for
        any time before that. False means `SendDeferred`: surely not sent.
        """

    async def show_typing(self, chat: str) -> None:
        """Show "typing…"; best effort, never raises."""

    async def chat(self, chat: str) -> Chat:
        """Return a chat's name and labels. Raises `SendError`; asking again does no harm."""

    async def sent_since(self, chat: str, since: int) -> tuple[SentPart, ...]:
        """Return the messages of ours in `chat` since the instant (µs), oldest first.

        It may begin much earlier, since the gateway's times are another clock's, and it holds what
        a human agent wrote from the bot's number: compare the texts, and leave out known ids.
        Raises `SendError` if the gateway cannot say.
        """
