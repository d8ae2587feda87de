"""`GET /v1/events/stream`: the log live, as server-sent events (WHATWG HTML, section 9.2).

Each event's `id` is its place in the log: a browser that comes back sends it as `Last-Event-ID` and
goes on after it, across restarts of the server. After a restore the answer is 410: start again
without it. Filters are those of `GET /v1/events`, and what they leave out is passed over. A slow
reader is read to page by page as fast as it takes them; the log does not wait for it, and nothing
is kept for it in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Final, NamedTuple

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import StreamingResponse

from app.api.callers import Caller, Gate, needs
from app.api.problem import Problem, ProblemError
from app.api.v1.events import OfRun, Types, presenter
from app.api.v1.paging import Question, found, stored_types
from app.api.v1.people import OfUser, refuse_no_pseudonym, stream_of
from app.api.v1.reading import BotName, Read, opened_cursor, page_cursor, read_for
from app.api.v1.showing import PROBLEMS
from eventstore.types import Position

router = APIRouter(prefix="/v1/events", tags=["events"])
Reader = Annotated[Caller, Depends(needs("events"))]

PAGE: Final = 200
MOST: Final = 100
"""Streams at once on one node."""
MOST_OF_ONE: Final = 10
"""And of one key, which must not take all of them."""
LOOK_SECONDS: Final = 1.0
"""How soon a stream ends whose key was revoked."""
BEAT_SECONDS: Final = 15.0
"""A comment so often tells proxies and readers that the connection lives."""
_QUESTION: Final = b"stream"
_BEYOND: Final = 2**62


@router.get(
    "/stream",
    summary="Follow the log live",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events without an end: `id` is a place in the log, `event` "
            "a type, `data` an event as `GET /v1/events` shows it.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **PROBLEMS,
    },
)
async def follow(  # noqa: PLR0913 - every filter is a parameter
    request: Request,
    caller: Reader,
    *,
    bot: BotName = "",
    user: OfUser = None,
    type: Types = None,  # noqa: A002 - the parameter's name
    correlation: OfRun = None,
    after: Annotated[
        int | None, Query(ge=0, description="begin after this position; else with what is new")
    ] = None,
    last_event_id: Annotated[str | None, Header(description="where to go on")] = None,
) -> StreamingResponse:
    """Send what is appended from now on, or from a position on."""
    read = read_for(request, caller, bot)
    refuse_no_pseudonym(user)
    types = stored_types(read.bot.codec, type)
    start = await read.run(partial(_start, read, user, after, last_event_id))
    question = Question(read.bot.name, user, types, correlation, 0, _BEYOND)
    streams: dict[object, str] = request.app.state.streams
    own = sum(key == caller.key for key in streams.values())
    if len(streams) >= MOST or (own >= MOST_OF_ONE and caller.role != "local"):
        raise ProblemError(_TOO_MANY, headers={"retry-after": "5"})
    return StreamingResponse(
        _lines(read, start, question, streams),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


def _start(read: Read, user: str | None, after: int | None, last_event_id: str | None) -> Position:
    """Return where to begin. Raises `ProblemError` 404 for a user whom nobody knows."""
    log = read.bot.log
    if user is not None:
        stream_of(log, user)
    if last_event_id:
        return opened_cursor(last_event_id, _QUESTION, log)
    head = log.head().position
    return head if after is None else Position(min(after, head))


async def _lines(
    read: Read, after: Position, question: Question, streams: dict[object, str]
) -> AsyncIterator[bytes]:
    me = object()
    streams[me] = read.caller.key
    gate: Gate = read.request.app.state.gate
    clock = asyncio.get_running_loop().time
    try:
        yield b": hilo\n\n"
        sent = looked = clock()
        while not read.bot.leaving:
            if clock() - looked > LOOK_SECONDS:
                looked = clock()
                if not await gate.holds(read.caller):
                    yield b"event: error\ndata: The key is good no more\n\n"
                    return
            try:
                chunk, after, is_last = await read.run(partial(_page, read, after, question))
            except ProblemError as error:
                yield f"event: error\ndata: {error.problem.title}\n\n".encode()
                return
            if chunk:
                yield chunk
                sent = clock()
            elif clock() - sent > BEAT_SECONDS:
                yield b": alive\n\n"
                sent = clock()
            elif is_last:
                await read.bot.news()
    finally:
        del streams[me]


class _Page(NamedTuple):
    """What is sent next, how far the log was looked through for it, and whether that is all."""

    chunk: bytes
    reached: Position
    is_last: bool


def _page(read: Read, after: Position, question: Question) -> _Page:
    log = read.bot.log
    head = log.head().position
    if head <= after:
        return _Page(b"", after, is_last=True)
    events, reached = found(read.bot, question, after, head, PAGE)
    present = presenter(read)
    lines = []
    for event in events:
        place = page_cursor(log.cursor_at(event.position), _QUESTION)
        kind = event.type.partition("@")[0]
        data = msgspec.json.encode(present.as_json(event))
        lines.append(b"id: %s\nevent: %s\ndata: %s\n\n" % (place.encode(), kind.encode(), data))
    return _Page(b"".join(lines), reached, is_last=reached >= head)


_TOO_MANY: Final = Problem(
    type="/problems/too-many-streams",
    title="Too many follow the log on this node",
    status=503,
    detail=f"At most {MOST} at once, {MOST_OF_ONE} of one key: try later, or on another node.",
)
