"""Problem documents (RFC 9457): how every error of the door looks, over raw ASGI and FastAPI alike.

A problem says what was wrong and what to do next, and never repeats what was sent: a body, a
query or an exception's message may hold personal data.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, MutableMapping
from http import HTTPStatus
from pathlib import Path
from traceback import extract_tb
from typing import Any, Protocol

import msgspec
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

CONTENT_TYPE = "application/problem+json"
Headers = Iterable[tuple[bytes, bytes]]

_log = structlog.get_logger(__name__)
_encode = msgspec.json.Encoder().encode


class _Send(Protocol):
    def __call__(self, message: MutableMapping[str, Any], /) -> Awaitable[None]: ...


class Invalid(msgspec.Struct, frozen=True):
    """One field that is wrong: `pointer` says where (RFC 6901), `detail` what."""

    pointer: str
    detail: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One problem document. `type` is the path under which the kind of problem is known."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    instance: str = ""
    errors: tuple[Invalid, ...] = ()

    def encode(self) -> bytes:
        """Return the document as JSON."""
        return _encode(self)


class ProblemError(Exception):
    """Raised by a route to answer with a problem document."""

    def __init__(self, problem: Problem, *, headers: dict[str, str] | None = None) -> None:
        self.problem = problem
        self.headers = headers
        super().__init__(problem.title)


UNEXPECTED = Problem(
    type="/problems/unexpected",
    title="Something failed that should not",
    status=500,
    detail="Nothing of this request is acknowledged. Try again; the log names the cause.",
)


def of_status(status: int, detail: str = "") -> Problem:
    """Return a problem that is no more than its HTTP status."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:  # a status of our own making
        title = "Error"
    return Problem(title=title, status=status, detail="" if detail == title else detail)


async def send_problem(send: _Send, problem: Problem, *, headers: Headers = ()) -> None:
    """Send `problem` as the whole response, over raw ASGI."""
    body = problem.encode()
    await send(
        {
            "type": "http.response.start",
            "status": problem.status,
            "headers": [
                (b"content-type", CONTENT_TYPE.encode()),
                (b"content-length", str(len(body)).encode()),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


def where(error: BaseException) -> str:
    """Return the innermost places an error came through: never its message or any value."""
    frames = extract_tb(error.__traceback__)[-4:]
    return " > ".join(
        f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames
    )


def register_problems(app: FastAPI) -> None:
    """Make `app` answer every error with a problem document.

    A failed validation names fields and rules, not values. An unexpected exception is logged as
    API_ERROR with its type and place, answered with 500, and ends there: left to the server, it
    would be printed with its message.
    """
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_middleware(_Unexpected)


def _response(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    return Response(
        problem.encode(), status_code=problem.status, media_type=CONTENT_TYPE, headers=headers
    )


async def _on_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)  # noqa: S101 - Starlette picks handlers by type
    return _response(error.problem, error.headers)


async def _on_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    headers = dict(error.headers) if error.headers else None
    if error.status_code in (204, 304):
        return Response(status_code=error.status_code, headers=headers)
    return _response(of_status(error.status_code, str(error.detail)), headers)


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    wrong = tuple(
        Invalid("/" + "/".join(map(_escaped, found["loc"])), str(found["msg"]))
        for found in error.errors()
    )
    problem = Problem(
        type="/problems/invalid-request",
        title="The request is not valid",
        status=422,
        detail="Correct the fields under `errors` and send it again.",
        errors=wrong,
    )
    return _response(problem)


def _escaped(part: object) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


class _Unexpected:
    """Answers what no handler expected, before the server would print it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:  # noqa: BLE001 - the last one who can answer
            _log.error("API_ERROR", error=type(error).__name__, where=where(error))
            if not started:
                await send_problem(send, UNEXPECTED)
