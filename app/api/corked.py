"""uvicorn's protocol with one write for an answer, and a keep-alive timer that is seldom set.

uvicorn writes head and body of an answer one after the other, which under load was 40 % of the
event loop's time (docs/performance.md), and sets and cancels a timer for each request. Here what
is written within one round of the loop leaves together.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class _Round:
    """What is to be written at the end of the event loop's round, on all connections.

    All of it together: a client in another process that is woken by the first answer is still
    awake for the others, and to wake it is what costs.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._corked: list[_Corked] = []

    def ends_with(self, corked: _Corked) -> None:
        """Flush a connection when the round ends."""
        if not self._corked:
            self._loop.call_soon(self._end)
        self._corked.append(corked)

    def _end(self) -> None:
        corked, self._corked = self._corked, []
        for each in corked:
            each.flush()


_rounds: WeakKeyDictionary[asyncio.AbstractEventLoop, _Round] = WeakKeyDictionary()


class _Corked:
    """A transport whose writes wait for the end of the event loop's round."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._round = _rounds.get(loop) or _rounds.setdefault(loop, _Round(loop))
        self._waiting: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send `data` with whatever else is written in this round."""
        if not self._waiting:
            self._round.ends_with(self)
        self._waiting.append(data)

    def close(self) -> None:
        """Send what waits, then close."""
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        """Send what waits."""
        if self._waiting:
            together = b"".join(self._waiting)
            self._waiting.clear()
            self._transport.write(together)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever else the transport has
        return getattr(self._transport, name)


class CorkedProtocol(HttpToolsProtocol):
    """uvicorn's fast protocol over a corked transport."""

    _idle_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection."""
        super().connection_made(_Corked(transport, self.loop))  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection, and its timer."""
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def on_response_complete(self) -> None:
        """Go on with what waits behind the answer, or be idle from now on."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._wait_idle(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for long enough; look again later at another."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return  # its next answer sets the timer again
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._wait_idle(left)
        else:
            super().timeout_keep_alive_handler()

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None  # the timer runs on, and looks

    def _wait_idle(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )
