"""How much the API reads of a request's body before it knows who sends it."""

from __future__ import annotations

from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problem import Problem, send_problem

MOST_BYTES: Final = 64 * 1024

_TOO_LARGE: Final = Problem(
    type="/problems/body-too-large",
    title="The request's body is too large",
    status=413,
    detail=f"Nothing here takes more than {MOST_BYTES} bytes.",
)


class BoundedBodies:
    """Refuses larger bodies: by what they announce, or as soon as they turn out to be."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand in front of `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: the ASGI interface."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _announced(scope) > MOST_BYTES:
            await send_problem(send, _TOO_LARGE)
            return
        taken = 0

        async def counted() -> Any:  # noqa: ANN401 - an ASGI message
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_BYTES:
                raise HTTPException(_TOO_LARGE.status, _TOO_LARGE.detail)
            return message

        await self._app(scope, counted, send)


def _announced(scope: Scope) -> int:
    length = dict(scope["headers"]).get(b"content-length", b"")
    return int(length) if length.isdigit() and len(length) < 19 else 0  # noqa: PLR2004 - of an int64
