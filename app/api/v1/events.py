"""`/v1/events`: the log itself, page by page, and one event with what led to it and from it.

A page never splits an append and stays the same while the log grows: its cursor is a place in the
log, and the leaf hash there tells a log that was restored. Texts are opened for roles that may
read them, and stay sealed for the others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from app.aggregates.catalogue import EVENT_CLASSES
from app.api.callers import Caller, needs
from app.api.problem import ProblemError
from app.api.v1.paging import Question, found, stored_types
from app.api.v1.people import OfUser, refuse_no_pseudonym, stream_of
from app.api.v1.problems import no_such
from app.api.v1.reading import (
    MOMENT,
    AsOf,
    BotName,
    MinPosition,
    Read,
    opened_cursor,
    page_cursor,
    read_for,
)
from app.api.v1.showing import answers
from app.asof import as_of
from app.projections.presenting import Presenter
from app.projections.timeline import Moment, timeline
from eventstore.types import Position, Recorded

router = APIRouter(prefix="/v1/events", tags=["events"])
Reader = Annotated[Caller, Depends(needs("events"))]
TYPES: Final = sorted({cls.type_name or cls.__name__ for cls in EVENT_CLASSES})
Types = Annotated[
    list[str] | None,
    Query(
        description="only events of these types; also stored names of older schemas",
        json_schema_extra={
            "anyOf": [
                {"type": "array", "items": {"type": "string", "enum": TYPES}},
                {"type": "null"},
            ]
        },
    ),
]
OfRun = Annotated[
    str | None,
    Query(description="only what belongs to this run; quick together with `user`"),
]


class EventPage(msgspec.Struct, frozen=True):
    """Events, oldest first, as of `position`. Without `next` there are no more as of then.

    With filters a page may hold few events, or none, and still have a `next`.
    """

    position: int
    events: list[dict[str, Any]]
    next: str | None = None
    """Give it as `cursor`, with the same filters."""


class EventDetail(msgspec.Struct, frozen=True):
    """One event, and its neighbours in its stream's causal chain."""

    position: int
    event: dict[str, Any]
    caused_by: dict[str, Any] | None
    caused: list[dict[str, Any]]
    chain: list[int]
    """Positions of everything that belongs together with it, itself included."""


_EVENT: Final = {
    "position": 42,
    "epoch": 1,
    "stream": "user/k7q2mzp4xw3abcde5fgh",
    "version": 3,
    "type": "TokensIncremented",
    "recorded_at": "2026-11-20T19:30:00.000001Z",
    "key": None,
    "append_id": "00112233445566778899aabbccddeeff",
    "state": {"thread": "conv_1", "run": "run_1", "total": 150, "cor": "run_1"},
}


@router.get(
    "",
    summary="Browse the log",
    responses=answers(
        EventPage, "A page of events.", {"position": 42, "events": [_EVENT], "next": None}
    ),
)
async def list_events(  # noqa: PLR0913 - every filter is a parameter
    request: Request,
    caller: Reader,
    *,
    bot: BotName = "",
    user: OfUser = None,
    type: Types = None,  # noqa: A002 - the parameter's name
    correlation: OfRun = None,
    since: Annotated[
        str | None,
        Query(
            description="after this position, or recorded after this instant",
            json_schema_extra={"anyOf": [{"type": "string", **MOMENT}, {"type": "null"}]},
        ),
    ] = None,
    until: AsOf = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="events of a page, about")] = 100,
    cursor: Annotated[str | None, Query(description="`next` of the page before")] = None,
    min_position: MinPosition = None,
) -> Response:
    """Return events in the order of the log, oldest first."""
    read = read_for(request, caller, bot)
    log = read.bot.log
    refuse_no_pseudonym(user)
    types = stored_types(read.bot.codec, type)
    await read.reflected((), min_position)

    def asked() -> tuple[Position, Callable[[], EventPage]]:
        if user is not None:
            stream_of(log, user)
        end = as_of(log, until)
        after = Position(0) if since is None else as_of(log, since)
        up_to = end if until is not None else Position(2**62)
        question = Question(read.bot.name, user, types, correlation, after, up_to)
        start = after if cursor is None else opened_cursor(cursor, question.digest(), log)
        return end, partial(_page, read, question, start, end, limit)

    return await read.answer_about(asked)


def _page(read: Read, question: Question, start: Position, end: Position, limit: int) -> EventPage:
    events, reached = found(read.bot, question, start, end, limit)
    present = presenter(read)
    more = reached < end
    following = page_cursor(read.bot.log.cursor_at(reached), question.digest()) if more else None
    return EventPage(end, [present.as_json(event) for event in events], following)


@router.get(
    "/{position}",
    summary="One event, what caused it and what it caused",
    responses=answers(
        EventDetail,
        "The event.",
        {"position": 42, "event": _EVENT, "caused_by": None, "caused": [], "chain": [42]},
    ),
)
async def show_event(
    request: Request,
    caller: Reader,
    position: Annotated[int, Path(ge=1, le=2**62)],
    *,
    bot: BotName = "",
) -> Response:
    """Return an event with its causal neighbours, as of now."""
    read = read_for(request, caller, bot)
    head = await read.position(None)

    def detail() -> EventDetail:
        event = read.bot.log.event_at(Position(position))
        if event is None:
            raise ProblemError(no_such("event"))
        present = presenter(read)
        if not event.stream.startswith("user/"):
            return EventDetail(head, present.as_json(event), None, [], [position])
        moments = timeline(read.bot.log, event.stream, up_to=head)
        return _detail(read, head, event, moments)

    return await read.answer(head, detail)


def presenter(read: Read) -> Presenter:
    """Return what shows events to the caller: opened only for those who may read texts."""
    sealer = read.bot.sealer if read.caller.may("texts") else None
    return Presenter(read.bot.codec, read.bot.log.head().epoch, sealer)


def _detail(read: Read, head: Position, event: Recorded, moments: list[Moment]) -> EventDetail:
    here = next(moment for moment in moments if moment.position == event.position)
    by_version = {moment.version: moment.position for moment in moments}
    cause = None if here.caused_by is None else by_version.get(here.caused_by)
    caused = [moment.position for moment in moments if moment.caused_by == here.version]
    present = presenter(read)

    def told(position: Position) -> dict[str, Any]:
        found = read.bot.log.event_at(position)
        assert found is not None  # noqa: S101 - the timeline was read from the log just now
        return present.as_json(found)

    return EventDetail(
        head,
        present.as_json(event),
        None if cause is None else told(cause),
        [told(position) for position in caused],
        [moment.position for moment in moments if moment.chain == here.chain],
    )
