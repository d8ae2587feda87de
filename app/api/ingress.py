"""The outermost ASGI callable: takes `/webhooks/` and hands all else to the application.

Webhooks are most of the traffic, and routing costs more than everything they need: in front of
FastAPI they are answered several times as fast as behind it (`docs/performance.md`).

    POST, PUT, PATCH, DELETE  /webhooks/whapi                    modes `body` and `method`
                              /webhooks/whapi/{event}            mode `method`
                              /webhooks/whapi/{event}/{method}   mode `path`
                              /webhooks/{bot}/whapi…             the same, for the bot of that name

200 `{"received": n}` means that all n facts are durable. Where no turn will look at some of them it
says at how many, `{"received": 3, "rejected": 1, "other": 0}`: those that could not be read, and
those of nobody or of no known kind (docs/door.md). Anything else is a problem document, and
the gateway delivers again: 400 not a JSON object, 401 wrong secret, 404 unknown channel, 405, 413
over `max_body` or over 2,000 items, 500 unexpected, 503 (with Retry-After) while the log or the
keys cannot be written, or when that takes longer than a gateway should be kept waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.desks import Desks, TakeAtOnce, WrongSecret
from app.api.heads import Headers, Heads
from app.api.problem import CONTENT_TYPE, UNEXPECTED, Problem, send_problem, where
from app.api.whapi import TooManyItems, UnreadableDelivery, read
from app.conversation.facts import NOTHING_ODD, Odd
from eventstore.errors import LogUnavailable, OutcomeUnknown, QueueFull

MAX_BODY = 1024 * 1024
WEBHOOK_SECONDS = 3.0
RETRY_AFTER = 5
"""Seconds after which the gateway should come again while the log cannot be written."""

PATH = "/webhooks/whapi"
ONE_RECEIVED = b'{"received": 1}'

_PREFIX = "/webhooks/"
_GATEWAY = "whapi"
_METHODS = frozenset(("POST", "PUT", "PATCH", "DELETE"))
_log = structlog.get_logger(__name__)


_UNAUTHENTIC = Problem(
    type="/problems/unauthentic-webhook",
    title="The webhook's secret is missing or wrong",
    status=401,
    detail="Set the secret as a custom header in the channel's webhook settings. A path that names "
    "no bot of this server is answered so, too: see that it is /webhooks/whapi or that of a bot.",
)
_NO_SUCH_WEBHOOK = Problem(
    type="/problems/no-such-webhook",
    title="There is no such webhook",
    status=404,
    detail="Set the channel's webhook URL to /webhooks/whapi.",
)
_UNKNOWN_CHANNEL = Problem(
    type="/problems/unknown-channel",
    title="No bot serves this channel",
    status=404,
    detail="Configure a bot with the channel_id of this webhook, or remove the webhook from the "
    "channel's settings.",
)
_OTHER_CHANNEL = Problem(
    type="/problems/unknown-channel",
    title="The bot of this path serves another channel",
    status=404,
    detail="Set the channel's webhook URL to the path of its own bot, or to /webhooks/whapi.",
)
_TOO_LARGE = Problem(
    type="/problems/body-too-large",
    title="The webhook's body is too large",
    status=413,
    detail="Send fewer items in one webhook; the limit is 1 MiB unless the settings say otherwise.",
)
_WRONG_METHOD = Problem(
    type="/problems/method-not-allowed",
    title="Webhooks are sent with POST, PUT, PATCH or DELETE",
    status=405,
    detail="Nothing can be read here.",
)
_UNAVAILABLE = Problem(
    type="/problems/log-unavailable",
    title="The log cannot be written now",
    status=503,
    detail="Nothing of this webhook is acknowledged. Deliver it again after Retry-After seconds.",
)
UNAVAILABLE_BODY = _UNAVAILABLE.encode()
UNAVAILABLE_HEADERS = [
    (b"content-type", CONTENT_TYPE.encode()),
    (b"content-length", str(len(UNAVAILABLE_BODY)).encode()),
    (b"retry-after", str(RETRY_AFTER).encode()),
]
"""A 503, as `send_problem` says it."""

OK_HEADERS = [
    ((b"content-type", b"application/json"), (b"content-length", str(length).encode()))
    for length in range(64)
]


class _Refused(Exception):
    """The webhook is answered with a problem. Never leaves this room.

    What is left of the body is discarded by the server. Without `connection: close`: closing with
    unread bytes resets the connection, and the sender would not see the answer.
    """

    def __init__(self, problem: Problem, *headers: tuple[bytes, bytes]) -> None:
        self.problem = problem
        self.headers = headers
        super().__init__(problem.title)

    @property
    def outcome(self) -> str:
        """The kind of problem in one word, as it is counted."""
        return self.problem.type.rpartition("/")[2].replace("-", "_")


def _uncounted(_: str) -> None:
    """Count nothing."""


class WebhookIngress:
    """Takes webhooks in front of `app`.

    `desks` finds the bot of each. `count` is called with the outcome of each webhook: `received`,
    `disconnected`, or the last word of its problem's type (`unknown_channel`, …).
    """

    def __init__(
        self,
        app: ASGIApp,
        desks: Desks,
        *,
        max_body: int = MAX_BODY,
        seconds: float = WEBHOOK_SECONDS,
        count: Callable[[str], None] = _uncounted,
    ) -> None:
        """`seconds`: after which a webhook that is not durable is answered with 503."""
        self._app = app
        self._desks = desks
        self._max_body = max_body
        self._seconds = seconds
        self.count = count
        self.heads = Heads()
        """What requests to `PATH` began with, for whoever reads them."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: the ASGI interface."""
        if scope["type"] != "http" or not scope["path"].startswith(_PREFIX):
            await self._app(scope, receive, send)
            return
        try:
            bot, event, method, opened = self._admit(scope)
            body = await self._body(receive)
            if body is None:
                self.count("disconnected")
                return
            answer = await self._take(body, event, method, opened, bot)
        except _Refused as refusal:
            self.count(refusal.outcome)
            await send_problem(send, refusal.problem, headers=refusal.headers)
            return
        self.count("received")
        headers = OK_HEADERS[len(answer)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def opened_by(self, headers: Headers) -> int:
        """Return the bots that the headers of a whole POST to `PATH` open; 0 if it is too large."""
        opened, length = self._headers(headers)
        return opened if length <= self._max_body else 0

    def at_once(self, opened: int, body: bytes, done: Callable[[bool], None]) -> bool:
        """Take a whole POST to `PATH` without a task, if it is what most are.

        `opened`: the bots that its headers open. True: `done(True)` will be called from the event
        loop when it is to be answered with 200, `OK_HEADERS` and `ONE_RECEIVED`, and to be counted
        as `received`. False, or `done(False)`: nothing has been promised; await the ASGI callable,
        which decides again and answers whatever there is to say.
        """
        try:
            delivery = read(body, method="POST")
            take = self._desks.take_for(delivery.channel, opened)
        except Exception:  # noqa: BLE001 - the ASGI callable will meet it again, and say so
            return False
        at_once: TakeAtOnce | None = getattr(take, "at_once", None)
        return at_once is not None and at_once(delivery, done)

    def unavailable(self, error: str) -> None:
        """Say, and count, that a webhook was answered with 503."""
        _log.warning("WEBHOOK_UNAVAILABLE", error=error)
        self.count("log_unavailable")

    def _admit(self, scope: Scope) -> tuple[str, str | None, str, int]:
        """Return bot, event and method as URL and verb name them, and the bots that are open to it.

        Raises `_Refused`.
        """
        path: str = scope["path"]
        verb: str = scope["method"]
        bot, event, method = ("", None, None) if path == PATH else _named(path)
        if verb not in _METHODS:
            allow = (b"allow", b"POST, PUT, PATCH, DELETE")
            raise _Refused(_WRONG_METHOD, allow)
        opened, length = self._headers(scope["headers"])
        if bot:
            opened = self._desks.only(bot, opened)
        if not opened:
            raise _Refused(_UNAUTHENTIC)
        if length > self._max_body:
            raise _Refused(_TOO_LARGE)
        return bot, event, method or verb, opened

    def _headers(self, headers: Headers) -> tuple[int, int]:
        """Return the bots that the secret opens, and the length that the sender announces."""
        desks = self._desks
        header, opened, length = desks.header, desks.open, 0
        for name, value in headers:
            if name == header:
                opened |= desks.opened_by(value)
            elif name == b"content-length" and value.isdigit():
                # A number of more digits than any size has is not worth converting.
                length = int(value) if len(value) < 20 else self._max_body + 1  # noqa: PLR2004
        return opened, length

    async def _body(self, receive: Receive) -> bytes | None:
        """Return the whole body, None if the client went away; raises `_Refused` if too large.

        What was announced does not matter here: a length may be missing, or a lie.
        """
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body: bytes = message.get("body", b"")
        if message.get("more_body", False):
            return await self._long_body(body, receive)
        if len(body) > self._max_body:
            raise _Refused(_TOO_LARGE)
        return body

    async def _long_body(self, first: bytes, receive: Receive) -> bytes | None:
        """Collect a body that comes in pieces, and stop reading where it gets too large."""
        body, more = bytearray(first), True
        while len(body) <= self._max_body:
            if not more:
                return bytes(body)
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
        raise _Refused(_TOO_LARGE)

    async def _take(
        self, body: bytes, event: str | None, method: str, opened: int, bot: str
    ) -> bytes:
        """Hand the facts to the channel's bot; return what is answered. Raises `_Refused`."""
        try:
            delivery = read(body, event=event, method=method)
            take = self._desks.take_for(delivery.channel, opened, bot)
            if take is not None:
                async with asyncio.timeout(self._seconds):
                    odd = await take(delivery)
                return _received(len(delivery.facts), odd)
        except UnreadableDelivery as error:
            raise _Refused(_unreadable(error)) from None
        except WrongSecret:
            raise _Refused(_UNAUTHENTIC) from None
        except (LogUnavailable, OutcomeUnknown, TimeoutError) as error:
            # After an unknown outcome too: what was appended is a duplicate when it comes again.
            _log.warning("WEBHOOK_UNAVAILABLE", error=type(error).__name__)
            seconds = error.retry_after if isinstance(error, QueueFull) else RETRY_AFTER
            retry = (b"retry-after", str(seconds).encode())
            raise _Refused(_UNAVAILABLE, retry) from None
        except Exception as error:  # noqa: BLE001 - whatever it is, it is to be delivered again
            # The message may hold personal data: its type and place have to do.
            _log.error("WEBHOOK_ERROR", error=type(error).__name__, where=where(error))
            raise _Refused(UNEXPECTED) from None
        raise _Refused(_OTHER_CHANNEL if bot else _UNKNOWN_CHANNEL)


def _received(facts: int, odd: Odd) -> bytes:
    if odd == NOTHING_ODD:
        return b'{"received": %d}' % facts
    return b'{"received": %d, "rejected": %d, "other": %d}' % (facts, *odd)


def _named(path: str) -> tuple[str, str | None, str | None]:
    """Return bot, event and method of `/webhooks/[{bot}/]whapi/{event}/{method}`.

    Raises `_Refused`.
    """
    parts = [part for part in path.split("/") if part][1:]
    bot = parts.pop(0) if parts and parts[0] != _GATEWAY else ""
    gateway, *named = parts or [""]
    if gateway != _GATEWAY or len(named) > len(("event", "method")):
        raise _Refused(_NO_SUCH_WEBHOOK)
    return bot, named[0] if named else None, named[1] if len(named) > 1 else None


def _unreadable(error: UnreadableDelivery) -> Problem:
    if isinstance(error, TooManyItems):
        return Problem(
            type="/problems/too-many-items",
            title="The webhook holds too many items",
            status=413,
            detail=str(error),
        )
    return Problem(
        type="/problems/unreadable-webhook",
        title="The body is not a webhook envelope",
        status=400,
        detail=str(error),
    )
