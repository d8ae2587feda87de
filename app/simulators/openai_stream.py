"""A response's events as server-sent events, for its caller or for one who comes back later."""

import asyncio

from starlette.types import Receive, Scope, Send

from app.simulators.faults import ABORT, Fault
from app.simulators.openai_runs import Run, Runs

_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
    ],
}


class EventStream:
    """An ASGI answer that follows a run from the event after `after` to its last.

    A client that leaves cancels the run if the run is not in the background. A `cut_stream` fault
    ends the answer after so many events, and never lets the terminal event through.
    """

    def __init__(self, runs: Runs, run: Run, *, after: int = -1, cut: Fault | None = None) -> None:
        self._runs = runs
        self._run = run
        self._next = after + 1
        self._cut = cut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer (ASGI)."""
        run = self._run
        leaving = asyncio.create_task(_client_leaves(receive))
        leaving.add_done_callback(lambda _: run.watchers.beat())
        try:
            await send(_START)
            while not self._ended():
                await run.watchers.until(lambda: self._has_more() or leaving.done())
                if leaving.done():
                    break
                chunk = b"".join(self._take())
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if leaving.done() and not run.body.background:
                self._runs.cancel(run)
        finally:
            leaving.cancel()
        await self._end(scope, send)

    def _limit(self) -> int:
        """Return how many events may be shown so far."""
        events = len(self._run.events or ())
        if self._cut is None:
            return events
        before_last = events - 1 if self._run.over else events
        return min(before_last, self._cut.events)

    def _has_more(self) -> bool:
        return self._limit() > self._next or self._ended()

    def _ended(self) -> bool:
        if self._cut is not None and self._next >= self._cut.events:
            return True
        return self._run.over and self._next >= self._limit()

    def _take(self) -> list[bytes]:
        limit = self._limit()
        chunk = (self._run.events or [])[self._next : limit]
        self._next = max(self._next, limit)
        return chunk

    async def _end(self, scope: Scope, send: Send) -> None:
        if self._cut is not None:
            if not self._cut.bill:
                self._runs.unbill(self._run)
            if self._cut.abort:
                scope["extensions"][ABORT]()
                return
        await send({"type": "http.response.body", "body": b""})


async def _client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
