"""The short way of a webhook: uvicorn's protocol, without ASGI where nothing needs it.

Of what an ASGI server does for a request, a webhook that brings one message of somebody known
needs little: no task, no messages to and fro. Once such a request is complete it is handed to
`WebhookIngress.at_once`, and answered when its event is durable. Whatever else comes, and whatever
does not go well, goes the ASGI way, which is the contract: there it is decided again
(docs/decisions/0008-a-short-way-for-webhooks.md).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.api.corked import CorkedProtocol
from app.api.heads import Headers
from app.api.ingress import (
    OK_HEADERS,
    ONE_RECEIVED,
    PATH,
    UNAVAILABLE_BODY,
    UNAVAILABLE_HEADERS,
    WebhookIngress,
)

_URL = PATH.encode()
MOST_HEAD = 512 * 1024
"""Bytes in which a request's head has to end; uvicorn would keep any number. What was read together
with the end of the request before it counts, too."""
_NOT_THERE = {"method": "POST", "path": PATH, "raw_path": _URL, "query_string": b""}
"""What a scope still lacks when the headers are complete."""


class ShortWayProtocol(CorkedProtocol):
    """uvicorn's protocol with a short way into its application, if that is a `WebhookIngress`."""

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - uvicorn's own
        """Take what uvicorn gives."""
        super().__init__(*arguments, **named)
        app = self.config.app
        usual = self.limit_concurrency is None and not self.root_path
        self._door = app if usual and isinstance(app, WebhookIngress) else None
        self._held = False
        """A request is being read whose ASGI task may not be needed."""
        self._answering: _Answering | None = None
        """The request on the short way; the cycle may be that of one behind it already."""
        self._body = b""
        self._opened = 0
        """The bots that the head of the request that is held opens."""
        self._in_head = False
        self._head_bytes = 0
        self._in_request = False
        self._between = False
        """The parser has read whole requests and nothing behind them: the next byte begins one."""
        self._taken = False
        """Of what is being read now, a request was complete and went the short way."""
        self._scope_alike: dict[str, Any] = {}
        """What the scopes of this connection's requests have in common."""

    def data_received(self, data: bytes) -> None:
        """Read; a request that is not complete by then goes the ASGI way, piece by piece."""
        if self._between and self._door is not None and self._take_known(self._door, data):
            return
        self._between = False
        begins = not self._in_request
        super().data_received(data)
        if self._taken:
            self._taken = False
            if begins:  # else these bytes are the rest of a head
                self._learn(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD:
                self.send_400_response("The request's head is too large.")
        if self._held:
            self._held = False
            self.go_the_asgi_way(self.scope, self._body, complete=False)

    def _take_known(self, door: WebhookIngress, data: bytes) -> bool:
        """Take a request whose head was read before, without reading that again.

        The parser never sees it, and goes on with the next one that is for it.
        """
        if self.flow.write_paused or not self._is_free():
            return False
        known = door.heads.of(data)
        if known is None:
            return False
        head, body = known
        self._unset_keepalive_if_required()
        self.headers = head.headers
        self.scope = {**self._scope_alike, "headers": head.headers}  # type: ignore[typeddict-item]
        if not self._take(door, head.opened, body):
            self.go_the_asgi_way(self.scope, body, complete=True)
        return True

    def _learn(self, data: bytes) -> None:
        """Remember the head of a request that `data` was, if it was nothing else."""
        assert self._door is not None  # noqa: S101 - else nothing was taken
        self._between = self._door.heads.learn(data, self.headers, self._opened, self._body)
        self._scope_alike = dict(self.scope)

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_request = True
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """Start the request's task, or wait for its body."""
        self._in_head = False
        self._held = self._may_be_short()
        if self._held:
            self._body = b""
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        if self._held:
            self._body += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Take a request the short way, if it was held for it and is what most are."""
        self._in_request = False
        if not self._held:
            super().on_message_complete()
            return
        self._held = False
        assert self._door is not None  # noqa: S101 - else nothing is held
        self._opened = self._door.opened_by(self.headers)
        self._taken = self._opened != 0 and self._take(self._door, self._opened, self._body)
        if not self._taken:
            self.go_the_asgi_way(self.scope, self._body, complete=True)

    def _take(self, door: WebhookIngress, opened: int, body: bytes) -> bool:
        """Take a request the short way, if it is what most are."""
        answering = _Answering(self, door, self.scope, body)
        if not door.at_once(opened, body, answering):
            return False
        self.cycle = answering  # type: ignore[assignment]
        self._answering = answering
        self.tasks.add(answering)  # type: ignore[arg-type]
        return True

    @property
    def on_short_way(self) -> object | None:
        """The request that waits for its event to be durable on the short way, if one does."""
        return self._answering

    def refuse_short_way(self) -> None:
        """Answer 503 to that request: what it waits for may come yet, and it is to come again."""
        if self._answering is not None:
            self._answering.refuse()

    def leave_short_way(self, answering: _Answering) -> None:
        """Wait for a request no longer."""
        self.tasks.discard(answering)
        self._answering = None

    def go_the_asgi_way(self, scope: Any, body: bytes, *, complete: bool) -> None:  # noqa: ANN401
        """Start the ordinary task of a request that was held, and has had no answer."""
        scope.update(_NOT_THERE, headers=list(scope["headers"]), state=self.app_state.copy())
        cycle = RequestResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=True,
            on_response=self.on_response_complete,
        )
        cycle.body += body
        cycle.more_body = not complete
        if complete or body:
            cycle.message_event.set()
        if self.scope is scope:  # else another request has been read behind it, and waits for it
            self.cycle = cycle
        self._start_asgi_task(cycle, self.app)

    def _may_be_short(self) -> bool:
        """Tell whether all that is known of a request before its body allows the short way."""
        parser = self.parser
        return (
            self._door is not None
            and self.url == _URL
            and self._is_free()
            and parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
            and not self.expect_100_continue
            and not self.flow.write_paused
        )

    def _is_free(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete


class _Answering:
    """A request on the short way: for uvicorn a connection's cycle, and a task to wait for."""

    __slots__ = (
        "_body", "_door", "_protocol", "_scope", "disconnected", "keep_alive", "refused",
        "response_complete",
    )  # fmt: skip

    def __init__(
        self,
        protocol: ShortWayProtocol,
        door: WebhookIngress,
        scope: Any,  # noqa: ANN401 - uvicorn's own
        body: bytes,
    ) -> None:
        self._protocol = protocol
        self._door = door
        self._scope = scope
        self._body = body
        self.disconnected = False
        self.keep_alive = True
        self.refused = False
        self.response_complete = False

    def __call__(self, recorded: bool) -> None:  # noqa: FBT001 - the receiver's answer
        """Answer 200; or, if the event was not recorded, go the ASGI way."""
        protocol = self._protocol
        if self.refused:  # when it comes again it is known
            return
        protocol.leave_short_way(self)
        if recorded:
            self._door.count("received")
        if self.disconnected or protocol.transport.is_closing():
            return
        if not recorded:
            protocol.go_the_asgi_way(self._scope, self._body, complete=True)
            return
        self._answer(_head(protocol.server_state.default_headers), ONE_RECEIVED)

    def refuse(self) -> None:
        """Answer 503, as the ASGI way does after as long."""
        protocol = self._protocol
        self.refused = True
        protocol.leave_short_way(self)
        self._door.unavailable("TimeoutError")
        if self.disconnected or protocol.transport.is_closing():
            return
        headers = [*protocol.server_state.default_headers, *UNAVAILABLE_HEADERS]
        head = b"HTTP/1.1 503 Service Unavailable\r\n" + _lines(headers)
        self._answer(head, UNAVAILABLE_BODY)

    def _answer(self, head: bytes, body: bytes) -> None:
        protocol = self._protocol
        self.response_complete = True
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        protocol.transport.write(head + end + body)
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()

    def cancel(self, msg: object = None) -> None:  # noqa: ARG002 - a task's
        """Give up: whoever waits is not answered, and comes again."""
        self.disconnected = True
        self._protocol.transport.close()

    @property
    def message_event(self) -> _Answering:
        """What a connection that is lost would wake."""
        return self

    def set(self) -> None:
        """Wake nobody."""


_heads: tuple[Headers | None, bytes] = (None, b"")


def _head(default: Headers) -> bytes:
    """Return the head of a 200 as the ASGI way writes it, but for its end.

    `default` are the server's own headers: the date, a new list each second.
    """
    global _heads  # noqa: PLW0603 - a cache of one
    if _heads[0] is not default:
        headers = [*default, *OK_HEADERS[len(ONE_RECEIVED)]]
        _heads = (default, b"HTTP/1.1 200 OK\r\n" + _lines(headers))
    return _heads[1]


def _lines(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])
