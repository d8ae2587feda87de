"""Whapi.cloud as the turn's messenger, and what else a bot asks of its channel.

Shapes: the vendor's OpenAPI 1.8.7. There is no idempotency key, so every error says whether the
request can have been carried out; nothing is tried twice here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import quote

import httpx2
import msgspec
import structlog

from app.conversation.ports import (
    Chat,
    SendDeferred,
    SendError,
    SendOutcomeUnknown,
    SendRefused,
    SentPart,
)
from app.gateways.http import NOT_SENT, TooLate, asked_last, http_client, retry_after

T = TypeVar("T")

LIST_SLACK_SECONDS = 86_400
"""How much earlier than asked `sent_since` looks: the gateway's times are its own clock's, and the
difference may be large. Callers tell old messages by their ids."""

PAGE = 500
MAX_PAGES = 20
MAX_WEBHOOK_HEADERS = 5
MICROSECONDS = 1_000_000

WEBHOOK_EVENTS = (
    *(("messages", method) for method in ("post", "put", "patch", "delete")),
    *(("statuses", method) for method in ("post", "put")),
    *(("chats", method) for method in ("post", "put", "patch", "delete")),
    *(("contacts", method) for method in ("post", "patch")),
    ("presences", "post"),
    *(("labels", method) for method in ("post", "delete")),
    *(("channel", method) for method in ("post", "patch")),
    *(("users", method) for method in ("post", "delete")),
)

# A 4xx that does not settle it: the request may still be under way, or done before.
_UNSETTLED = frozenset(
    {httpx2.codes.REQUEST_TIMEOUT, httpx2.codes.CONFLICT, httpx2.codes.TOO_EARLY}
)

_FAILURES = (httpx2.HTTPError, TooLate, TimeoutError, msgspec.DecodeError, UnicodeDecodeError)

_log = structlog.get_logger(__name__)


class WhapiSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the channel is. The token is not here, so that settings can be shown."""

    base_url: str = "https://gate.whapi.cloud"
    channel: str = ""
    """The channel's id as webhooks carry it, e.g. `MANTIS-M72HC`."""
    send_seconds: float = 10.0
    """From the start of a send to its outcome. Must be below the delivery deadline."""
    typing_seconds: float = 2.0
    connections: int = 100


class ChannelHealth(msgspec.Struct, frozen=True):
    """The channel's status: `AUTH` is the one in which it can send."""

    code: int
    text: str


class _Id(msgspec.Struct, frozen=True):
    id: str = ""


class _Sent(msgspec.Struct, frozen=True):
    sent: bool = False
    message: _Id | None = None


class _Content(msgspec.Struct, frozen=True):
    body: str | None = None
    caption: str | None = None


class _Message(msgspec.Struct, frozen=True):
    id: str
    from_me: bool
    timestamp: float
    text: _Content | None = None
    link_preview: _Content | None = None
    image: _Content | None = None
    video: _Content | None = None
    document: _Content | None = None


class _Messages(msgspec.Struct, frozen=True):
    messages: tuple[_Message, ...]


class _Label(msgspec.Struct, frozen=True):
    name: str = ""


class _Chat(msgspec.Struct, frozen=True):
    id: str
    name: str | None = None
    labels: tuple[_Label | str, ...] | None = None


class _Health(msgspec.Struct, frozen=True):
    status: ChannelHealth


class _Anything(msgspec.Struct, frozen=True):
    """An object of which nothing matters but that it is one."""


class WhapiMessenger:
    """`Messenger` on one Whapi channel."""

    name = "whapi"

    def __init__(self, settings: WhapiSettings, *, token: str) -> None:
        self._settings = settings
        self.channel = settings.channel
        self._http = http_client(
            settings.base_url,
            total=settings.send_seconds,
            connections=settings.connections,
            token=token,
        )

    async def close(self) -> None:
        """Close the connections. Idempotent; the messenger is of no use afterwards."""
        await self._http.aclose()

    async def send_text(
        self, chat: str, text: str, *, quoted: str = "", still: Callable[[], bool] | None = None
    ) -> str:
        """Send one text and return its id. Raises `SendError`; see the port for the three kinds."""
        body = text_body(chat, text, quoted)
        sent = await self._call("POST", "/messages/text", _Sent, body=body, still=still)
        if not sent.sent or sent.message is None or not sent.message.id:
            code = "not_confirmed"
            raise SendOutcomeUnknown(code)
        return sent.message.id

    async def show_typing(self, chat: str) -> None:
        """Show "typing…"; best effort within 2 s, never raises. Not worth waiting for."""
        try:
            await self._call(
                "PUT",
                f"/presences/{_quoted(chat)}",
                _Anything,
                body={"presence": "typing"},
                seconds=self._settings.typing_seconds,
            )
        except SendError as error:
            _log.info("typing_not_shown", category=error.code)

    async def sent_since(self, chat: str, since: int) -> tuple[SentPart, ...]:
        """Return what the channel's number sent to `chat` since the instant (µs), oldest first.

        Begins up to `LIST_SLACK_SECONDS` + 1 earlier. `text` is a text's body or a caption.
        Raises `SendError` if the gateway cannot say, also for a chat that it does not know: a
        list without a chat that wrote to us is a list that was lost.
        """
        time_from = max(0, since // MICROSECONDS - LIST_SLACK_SECONDS)
        found: dict[str, SentPart] = {}
        # Newest first: a message that comes in meanwhile moves others to a later page, where they
        # are seen twice; the other way round some could be missed.
        for page in range(MAX_PAGES):
            query = {
                "time_from": str(time_from),
                "from_me": "true",
                "sort": "desc",
                "count": str(PAGE),
                "offset": str(page * PAGE),
            }
            path = f"/messages/list/{_quoted(chat)}"
            listed = (await self._call("GET", path, _Messages, query=query)).messages
            for message in listed:
                if message.from_me and message.timestamp >= time_from:
                    found[message.id] = _part(message)
            if len(listed) < PAGE:
                oldest_first = list(found.values())
                oldest_first.reverse()  # the sort keeps this order within a second
                return tuple(sorted(oldest_first, key=lambda part: part.at))
        code = "list_too_long"
        raise SendOutcomeUnknown(code)

    async def chat(self, chat: str) -> Chat:
        """Return a chat's name and labels. Raises `SendError`."""
        card = await self._call("GET", f"/chats/{_quoted(chat)}", _Chat)
        labels = (label if isinstance(label, str) else label.name for label in card.labels or ())
        return Chat(name=card.name or "", labels=tuple(filter(None, labels)))

    async def health(self) -> ChannelHealth:
        """Return the channel's status, without waking it. Raises `SendError`."""
        return (await self._call("GET", "/health", _Health, query={"wakeup": "false"})).status

    async def mark_read(self, message: str) -> None:
        """Show a person that their message was read. Raises `SendError`."""
        await self._call("PUT", f"/messages/{_quoted(message)}", _Anything)

    async def configure_webhook(self, url: str, headers: Mapping[str, str]) -> None:
        """Make `url` the channel's only webhook, with at most five static headers.

        Raises ValueError for more headers, `SendError` if the gateway does not take it.
        """
        if len(headers) > MAX_WEBHOOK_HEADERS:
            msg = f"Whapi takes at most {MAX_WEBHOOK_HEADERS} webhook headers, not {len(headers)}"
            raise ValueError(msg)
        webhook = {
            "url": url,
            "mode": "body",
            "headers": dict(headers),
            "events": [{"type": kind, "method": method} for kind, method in WEBHOOK_EVENTS],
        }
        await self._call("PATCH", "/settings", _Anything, body={"webhooks": [webhook]})

    async def _call(  # noqa: PLR0913 - the parts of a request
        self,
        method: str,
        path: str,
        shape: type[T],
        *,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, str] | None = None,
        seconds: float | None = None,
        still: Callable[[], bool] | None = None,
    ) -> T:
        """Ask once and decode the answer. Raises `SendError`, with no text of anybody in it."""
        content = None if body is None else msgspec.json.encode(body)
        try:
            async with asyncio.timeout(seconds or self._settings.send_seconds):
                answer = await self._http.request(
                    method,
                    path,
                    content=content,
                    params=query,
                    headers=None if content is None else {"content-type": "application/json"},
                    extensions=None if still is None else asked_last(still),
                )
            if answer.is_success:
                return msgspec.json.decode(answer.content, type=shape)
        except _FAILURES as error:
            raise _failure(error) from None
        raise _refusal(answer)


def text_body(chat: str, text: str, quoted: str) -> dict[str, object]:
    """Return the body of a send; the gateway is not to type first, since presence shows typing."""
    body: dict[str, object] = {"to": chat, "body": text, "typing_time": 0}
    return {**body, "quoted": quoted} if quoted else body


def _failure(error: Exception) -> SendError:
    if isinstance(error, TooLate):
        return SendDeferred("too_late")
    if isinstance(error, NOT_SENT):
        return SendDeferred("connect")
    if isinstance(error, (TimeoutError, httpx2.TimeoutException)):
        return SendOutcomeUnknown("timeout")
    if isinstance(error, (msgspec.DecodeError, UnicodeDecodeError, httpx2.DecodingError)):
        return SendOutcomeUnknown("malformed")
    return SendOutcomeUnknown("disconnected")


def _refusal(answer: httpx2.Response) -> SendError:
    status = answer.status_code
    code = f"http_{status}"
    wait = retry_after(answer.headers)
    if status == httpx2.codes.TOO_MANY_REQUESTS:
        return SendDeferred(code, retry_after=wait)
    if status >= httpx2.codes.INTERNAL_SERVER_ERROR or status in _UNSETTLED:
        return SendOutcomeUnknown(code, retry_after=wait)
    return SendRefused(code)


def _part(message: _Message) -> SentPart:
    contents = (
        message.text,
        message.link_preview,  # what the gateway makes of a text with an address in it
        message.image,
        message.video,
        message.document,
    )
    texts = (content.body or content.caption for content in contents if content is not None)
    return SentPart(
        id=message.id,
        text=next(filter(None, texts), ""),
        at=round(message.timestamp * MICROSECONDS),
    )


def _quoted(id_: str) -> str:
    return quote(id_, safe="@")
