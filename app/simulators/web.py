"""What both simulators' doors share: JSON in and out, the vendor's error body, size limits."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, TypeVar, cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Lifespan

Json: TypeAlias = dict[str, object]
Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
ErrorBody: TypeAlias = Callable[["VendorError"], object]

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Above it the answer is 413; OpenAI's own limit for a request is of this size."""

MAX_WAIT_SECONDS = 60.0
"""The longest a long-poll (`/_sim/…/wait`) stays open."""

T = TypeVar("T")
_encode = msgspec.json.Encoder().encode


class VendorError(Exception):
    """What the vendor answers instead of what was asked for.

    `code` and `param` are OpenAI's; Whapi shows `status` as its numeric code and `code`, if any,
    as `details`. `retry_after` (seconds) becomes the header of that name.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after


def reply(payload: object, status: int = 200) -> Response:
    """`payload` as a JSON answer."""
    return Response(_encode(payload), status, media_type="application/json")


def refusal(error: VendorError, error_body: ErrorBody) -> Response:
    """`error` as the vendor would put it."""
    answer = reply(error_body(error), error.status)
    if error.retry_after is not None:
        answer.headers["retry-after"] = f"{error.retry_after:g}"
    return answer


async def read_body(request: Request) -> bytes:
    """The whole body. Raises VendorError 413 above `MAX_BODY_BYTES`."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise VendorError(413, "Request body too large")
    except ClientDisconnect as gone:
        # Nobody reads this answer; it only ends the request without a traceback.
        raise VendorError(400, "The client left before the body was complete") from gone
    return bytes(body)


async def read_json(request: Request, shape: type[T]) -> T:
    """The body as a `shape`; an empty body is an empty object. Raises VendorError 400."""
    body = await read_body(request)
    try:
        return msgspec.json.decode(body or b"{}", type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        msg = f"We could not parse the JSON body of your request: {wrong}"
        raise VendorError(400, msg, code="invalid_json") from wrong


def number(request: Request, name: str, default: float, low: float, high: float) -> float:
    """The query parameter `name` between `low` and `high`. Raises VendorError 400."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError as wrong:
        raise VendorError(400, f"Invalid {name!r}: not a number", param=name) from wrong
    if not low <= value <= high:  # also refuses NaN
        msg = f"Invalid {name!r}: expected {low:g} to {high:g}, got {text}"
        raise VendorError(400, msg, param=name)
    return value


def choice(request: Request, name: str, default: str, allowed: Sequence[str]) -> str:
    """The query parameter `name`, one of `allowed`. Raises VendorError 400."""
    value = request.query_params.get(name, default)
    if value not in allowed:
        msg = f"Invalid {name!r}: expected one of {', '.join(allowed)}"
        raise VendorError(400, msg, param=name)
    return value


def wait_seconds(request: Request) -> float:
    """How long a long-poll may take: its `timeout` parameter, 30 s when not given."""
    return number(request, "timeout", 30.0, 0.0, MAX_WAIT_SECONDS)


def door(
    routes: Sequence[Route], error_body: ErrorBody, *, lifespan: Lifespan[Starlette]
) -> Starlette:
    """An application that answers every refusal, even of an unknown path, with `error_body`."""

    async def refuse(_: Request, error: Exception) -> Response:
        return refusal(cast("VendorError", error), error_body)

    async def refuse_http(request: Request, error: Exception) -> Response:
        problem = cast("HTTPException", error)
        msg = f"{problem.detail} ({request.method} {request.url.path})"
        return refusal(VendorError(problem.status_code, msg), error_body)

    async def refuse_crash(_: Request, error: Exception) -> Response:
        msg = f"The simulator failed: {error!r}"
        return refusal(VendorError(500, msg, code="server_error"), error_body)

    return Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={
            VendorError: refuse,
            HTTPException: refuse_http,
            Exception: refuse_crash,
        },
    )


def require_bearer(request: Request, expected: str | None) -> None:
    """Raise VendorError 401 unless the request carries a bearer token: `expected`, if given."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise VendorError(401, "You didn't provide a token. Use: Authorization: Bearer TOKEN")
    if expected is not None and token != expected:
        raise VendorError(401, "Incorrect token provided", code="invalid_api_key")
