"""A server as small as ASGI allows: one request in, what was sent out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message


class Answer(msgspec.Struct):
    """What an application sent."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever the application says
        return msgspec.json.decode(self.body)


class Exchange:
    """One request; a piece that is None is the client going away."""

    def __init__(
        self,
        body: bytes | Sequence[bytes | None] = b"",
        *,
        method: str = "POST",
        path: str = "/webhooks/whapi",
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 3010),
        }
        self._pieces = [body] if isinstance(body, bytes) else list(body)
        self.read = 0
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        self.read += 1
        piece = self._pieces.pop(0) if self._pieces else None
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def run(self, app: ASGIApp) -> Answer | None:
        """Let `app` answer; None if it said nothing."""
        await app(self.scope, self.receive, self.send)
        if not self.sent:
            return None
        start, *rest = self.sent
        return Answer(
            status=start["status"],
            headers={name.decode(): value.decode() for name, value in start["headers"]},
            body=b"".join(message.get("body", b"") for message in rest),
        )


async def ask(app: ASGIApp, *args: Any, **options: Any) -> Answer:  # noqa: ANN401 - as Exchange
    """Run one exchange that is answered, by a complete response of the announced length."""
    answer = await Exchange(*args, **options).run(app)
    assert answer is not None
    assert int(answer.headers["content-length"]) == len(answer.body)
    return answer
