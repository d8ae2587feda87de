"""Faults that can be switched on: rules, the board that holds them, and the gate that plays them.

A rule says which requests it meets (`match`, `contains`, `skip`, `rate`), how often (`times`) and
what happens to them (`kind`). The gate plays what concerns the connection; what concerns the work
itself (`locked`, `fail`, `cut_stream` …) is handed to the handler, which asks `fault_of(request)`.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias, cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.simulators.web import ErrorBody, VendorError, read_json, refusal, reply

ABORT = "hilo.abort"
"""The ASGI extension of `serving`: `scope["extensions"][ABORT]()` drops the TCP connection."""

MAX_RULES = 1000

Kind: TypeAlias = Literal[
    "status",  # an error of `status`, with `code`, `message` and `retry_after`
    "latency",  # `seconds` later, as if nothing had been
    "hang",  # accepted, never answered (closed after `seconds`, if given)
    "disconnect",  # closed before anything is processed or answered
    "disconnect_after",  # processed (and billed, or sent), then closed without an answer
    "malformed_json",  # processed, but the answer is cut in the middle of its JSON
    "cut_stream",  # a stream ends after `events` events, with no last word; see `bill`, `abort`
    "slow_stream",  # `seconds` between the events of a stream
    "locked",  # 400 conversation_locked
    "conversation_lost",  # `conversation`, or the one of the request, answers 404 from now on
    "fail",  # the response fails, with `code` and `message`; see `bill`
    "incomplete",  # the response stops half-way
]


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One rule, in the shape of `POST /_sim/faults`."""

    match: str
    """Method and path, with `*`: `POST /v1/responses`, `* /v1/conversations/*`, `*`."""
    kind: Kind
    times: int = 1
    """How many requests it strikes; 0 = until cleared."""
    skip: int = 0
    """How many matching requests pass first."""
    rate: float = 1.0
    """The share of matching requests it strikes, drawn from the simulator's seed."""
    contains: str = ""
    """Only requests whose body contains this text."""
    status: int = 500
    code: str | None = None
    message: str | None = None
    retry_after: float | None = None
    seconds: float = 0.0
    events: int = 2
    bill: bool = True
    """Whether a cut or failed response is billed; a cut one that is billed completes, unseen."""
    abort: bool = False
    """Whether a cut stream drops the connection instead of ending the body properly."""
    conversation: str | None = None
    struck: int = 0
    """How many requests it struck so far."""

    def __post_init__(self) -> None:
        """Refuse what could only be a mistake."""
        if not 200 <= self.status <= 599:  # noqa: PLR2004 - the range of HTTP's own answers
            msg = f"status must be 200 to 599, not {self.status}"
            raise ValueError(msg)
        if min(self.times, self.skip, self.events, self.seconds, self.rate) < 0:
            msg = "times, skip, events, seconds and rate cannot be negative"
            raise ValueError(msg)

    def meets(self, method: str, path: str, body: bytes) -> bool:
        """Whether this rule concerns a request."""
        verb, _, pattern = self.match.rpartition(" ")
        if verb.strip() not in ("", "*", method) or not fnmatchcase(path, pattern):
            return False
        return self.contains.encode() in body


class FaultBoard:
    """The rules that are on. The first rule that meets a request strikes it, alone."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.rules: list[Fault] = []

    def add(self, rules: list[Fault]) -> None:
        """Switch rules on, after those that are on already."""
        if len(self.rules) + len(rules) > MAX_RULES:
            raise VendorError(400, f"At most {MAX_RULES} rules")
        self.rules += rules

    def needs_body(self) -> bool:
        """Whether a rule looks into bodies."""
        return any(rule.contains for rule in self.rules)

    def take(self, method: str, path: str, body: bytes = b"") -> Fault | None:
        """The rule that strikes this request, used up by one."""
        for rule in self.rules:
            if rule.times and rule.struck >= rule.times:
                continue
            if not rule.meets(method, path, body):
                continue
            if rule.skip:
                rule.skip -= 1
                continue
            if rule.rate < 1.0 and self._rng.random() >= rule.rate:
                continue
            rule.struck += 1
            return rule
        return None


def fault_of(request: Request) -> Fault | None:
    """The rule that strikes this request, for its handler to play."""
    return cast("Fault | None", request.scope.get("hilo.fault"))


def fault_routes(board: FaultBoard) -> list[Route]:
    """`GET, POST, DELETE /_sim/faults`."""

    async def show(_: Request) -> Response:
        return reply({"faults": board.rules})

    async def switch_on(request: Request) -> Response:
        board.add(await read_json(request, list[Fault]))
        return reply({"faults": board.rules})

    async def clear(_: Request) -> Response:
        struck = sum(rule.struck for rule in board.rules)
        board.rules.clear()
        return reply({"faults": [], "struck": struck})

    return [
        Route("/_sim/faults", show, methods=["GET"]),
        Route("/_sim/faults", switch_on, methods=["POST"]),
        Route("/_sim/faults", clear, methods=["DELETE"]),
    ]


class FaultGate:
    """The outermost ASGI application: plays connection faults, passes the others on.

    Paths under `/_sim` are the test's own and never struck.
    """

    def __init__(self, app: ASGIApp, board: FaultBoard, error_body: ErrorBody) -> None:
        self._app = app
        self._board = board
        self._error_body = error_body
        self._plays: dict[str, Callable[[Fault, Scope, Receive, Send], Awaitable[None]]] = {
            "status": self._status,
            "latency": self._latency,
            "hang": self._hang,
            "disconnect": self._disconnect,
            "disconnect_after": self._disconnect_after,
            "malformed_json": self._malformed_json,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI), or spoil it."""
        rules = self._board.rules
        if not rules or scope["type"] != "http" or scope["path"].startswith("/_sim"):
            await self._app(scope, receive, send)
            return
        body = b""
        if self._board.needs_body():
            body, receive = await _read_ahead(receive)
        fault = self._board.take(scope["method"], scope["path"], body)
        if fault is None:
            await self._app(scope, receive, send)
            return
        scope["hilo.fault"] = fault
        await self._plays.get(fault.kind, self._pass_on)(fault, scope, receive, send)

    async def _pass_on(self, _: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def _status(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        message = fault.message or f"Simulated fault: status {fault.status}"
        error = VendorError(fault.status, message, code=fault.code, retry_after=fault.retry_after)
        # The body is read first: a server that answers early may reset the connection.
        await _read_ahead(receive)
        await refusal(error, self._error_body)(scope, receive, send)

    async def _latency(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(fault.seconds)
        await self._app(scope, receive, send)

    async def _hang(self, fault: Fault, scope: Scope, receive: Receive, _: Send) -> None:
        try:
            async with asyncio.timeout(fault.seconds or None):
                await _client_gone(receive)
        except TimeoutError:
            await _abort(scope, receive)

    async def _disconnect(self, _: Fault, scope: Scope, receive: Receive, __: Send) -> None:
        await _abort(scope, receive)

    async def _disconnect_after(self, _: Fault, scope: Scope, receive: Receive, __: Send) -> None:
        async def nowhere(_: Message) -> None:
            """Drop what the handler answers."""

        await self._app(scope, _deaf_to_disconnects(receive), nowhere)
        await _abort(scope, receive)

    async def _malformed_json(self, _: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._app(scope, _deaf_to_disconnects(receive), keep)
        body = _spoil(b"".join(message.get("body", b"") for message in messages[1:]))
        headers = [
            (name, value) for name, value in messages[0]["headers"] if name != b"content-length"
        ]
        headers.append((b"content-length", str(len(body)).encode()))
        await send({**messages[0], "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _spoil(body: bytes) -> bytes:
    """Cut JSON in its middle, or a stream in the middle of its last event."""
    last_event = body.rfind(b"\ndata: ")
    if last_event >= 0:
        return body[: last_event + 20] + b"\n\n"
    return body[: len(body) // 2] or b"{"


async def _read_ahead(receive: Receive) -> tuple[bytes, Receive]:
    """Return the whole body, and a `receive` that gives it once more."""
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message["type"] == "http.request" and message.get("more_body", False)
    waiting = [bytes(body)]

    async def again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return bytes(body), again


def _deaf_to_disconnects(receive: Receive) -> Receive:
    """Wrap a `receive` so that the client seems to stay, whatever it does."""

    async def patient() -> Message:
        message = await receive()
        if message["type"] == "http.disconnect":
            await asyncio.get_running_loop().create_future()
        return message

    return patient


async def _client_gone(receive: Receive) -> None:
    """Return when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _abort(scope: Scope, receive: Receive) -> None:
    """Drop the connection, now. Only `serving` can: elsewhere this raises KeyError."""
    scope["extensions"][ABORT]()
    await _client_gone(receive)


async def abort(request: Request) -> None:
    """Drop the connection of a request whose body was read."""
    await _abort(request.scope, request.receive)
