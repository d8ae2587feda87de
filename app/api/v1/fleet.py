"""What the read models say of everybody: threads, tokens, clean-ups, figures, and how they stand.

Each can be asked `as_of`: the read models are then built as they were, in the worker process, and
kept for those who ask about the same moment again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from app.api.callers import Caller, needs
from app.api.problem import ProblemError
from app.api.v1.people import no_such_user
from app.api.v1.reading import INSTANT, AsOf, BotName, MinPosition, Read, read_for
from app.api.v1.showing import answers, shown
from app.asof import UnclearMoment, micros, parse
from app.projections import (
    DEFAULT_LIMIT,
    MODELS,
    Bands,
    ModelStatus,
    Span,
    Threads,
    ThreadView,
    Views,
    analytics,
    bands,
    models,
    thread,
    threads,
    top,
)
from app.projections.cleanups import Cleanups, cleanups
from eventstore.types import Position

router = APIRouter(prefix="/v1", tags=["read models"])
Reader = Annotated[Caller, Depends(needs("events"))]
Figures = Annotated[Caller, Depends(needs("figures"))]

Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=10_000_000)]
_SAID: Final = {"anyOf": [{"type": "string", **INSTANT}, {"type": "null"}]}
Since = Annotated[
    str | None,
    Query(description="from this instant (with its zone) on", json_schema_extra=_SAID),
]
Until = Annotated[
    str | None,
    Query(description="before this instant (with its zone)", json_schema_extra=_SAID),
]
Per = Annotated[
    Literal["hour", "day", "month", "all"], Query(description="what figures are added up over")
]
Ask = Callable[[Views, Span], Any]


class Projections(msgspec.Struct, frozen=True):
    """How the read models stand."""

    projections: list[ModelStatus]


class Bots(msgspec.Struct, frozen=True):
    """The bots of this node that the caller may ask about."""

    bots: list[str]


_PAIR: Final = ("thread_map", "token_totals")
_THREAD: Final = {
    "user": "k7q2mzp4xw3abcde5fgh",
    "thread": "conv_1",
    "started_at": "2026-11-20T19:00:01.000001Z",
    "reset_reason": None,
    "registered_at": "2026-11-20T19:00:00.000001Z",
    "last_activity": "2026-11-20T19:30:00.000001Z",
    "messages_in": 2,
    "messages_out": 2,
    "tokens": 150,
    "total": 150,
    "left_behind": 0,
    "unknown_runs": 0,
}


@router.get(
    "/bots",
    summary="The bots of this node",
    responses=answers(Bots, "Their names.", {"bots": ["default"]}),
)
async def list_bots(request: Request, caller: Figures) -> Response:
    """Return the names that `bot` may have."""
    names = sorted(request.app.state.bots())
    allowed = [name for name in names if caller.bot in {"", name}]
    return Response(msgspec.json.encode(Bots(allowed)), media_type="application/json")


@router.get(
    "/threads",
    summary="Conversations, the last active or the largest first",
    responses=answers(Threads, "A page of them.", {"position": 42, "threads": [_THREAD]}),
)
async def list_threads(  # noqa: PLR0913 - every filter is a parameter
    request: Request,
    caller: Reader,
    *,
    bot: BotName = "",
    sort: Annotated[Literal["activity", "tokens"], Query()] = "activity",
    limit: Limit = 50,
    offset: Offset = 0,
    as_of: AsOf = None,
    min_position: MinPosition = None,
) -> Response:
    """Return the thread map with what each conversation has cost."""
    read = read_for(request, caller, bot)

    def ask(views: Views) -> Threads:
        return (
            threads(views, limit=limit, offset=offset) if sort == "activity" else top(views, limit)
        )

    return await _answer(read, _PAIR, ask, as_of, min_position)


@router.get(
    "/threads/{user}",
    summary="One user's conversation",
    responses=answers(ThreadView, "It.", _THREAD),
)
async def show_thread(
    request: Request, caller: Reader, user: str, *, bot: BotName = "", as_of: AsOf = None
) -> Response:
    """Return one row of the thread map. `GET /v1/users/{user}` says more, from the stream."""
    read = read_for(request, caller, bot)

    def ask(views: Views) -> ThreadView:
        found = thread(views, user)
        if found is None:
            raise ProblemError(no_such_user(user))
        return found

    return await _answer(read, _PAIR, ask, as_of)


@router.get(
    "/tokens",
    summary="How near to the limit conversations are",
    responses=answers(
        Bands,
        "Counts by band.",
        {
            "position": 42, "limit": 1_000_000, "contacts": 3, "with_tokens": 2, "near_limit": 0,
            "bands": [{"band": "normal", "threads": 2, "tokens": 300}],
        },
    ),
)  # fmt: skip
async def show_tokens(  # noqa: PLR0913 - every filter is a parameter
    request: Request,
    caller: Figures,
    *,
    bot: BotName = "",
    limit: Annotated[int, Query(ge=1, le=10**12, description="tokens of 100 %")] = DEFAULT_LIMIT,
    as_of: AsOf = None,
    min_position: MinPosition = None,
) -> Response:
    """Return the bands of B1 and how many conversations are in each."""
    read = read_for(request, caller, bot)
    return await _answer(read, _PAIR, lambda views: bands(views, limit), as_of, min_position)


@router.get(
    "/cleanups",
    summary="The clean-up log, newest first",
    responses=answers(Cleanups, "A page of it.", {"position": 42, "cleanups": []}),
)
async def list_cleanups(  # noqa: PLR0913 - every filter is a parameter
    request: Request,
    caller: Reader,
    *,
    bot: BotName = "",
    limit: Limit = 10,
    offset: Offset = 0,
    as_of: AsOf = None,
    min_position: MinPosition = None,
) -> Response:
    """Return what each run of the clean-up left, and where it was before."""
    read = read_for(request, caller, bot)
    return await _answer(
        read,
        ("cleanup_log",),
        lambda views: cleanups(views, limit=limit, offset=offset),
        as_of,
        min_position,
    )


@router.get(
    "/projections",
    summary="How the read models stand",
    responses=answers(Projections, "Each of them.", {"projections": []}),
)
async def list_projections(request: Request, caller: Figures, *, bot: BotName = "") -> Response:
    """Return position, lag and state of every read model."""
    read = read_for(request, caller, bot)
    found = await read.run(lambda: models(read.bot.views, read.bot.log, MODELS))
    return Response(msgspec.json.encode(shown(Projections(found))), media_type="application/json")


_FIGURES: Final[dict[str, tuple[tuple[str, ...], Ask, type[Any], str]]] = {
    "usage": (("usage",), analytics.usage, analytics.UsageReport, "Tokens and cost by model"),
    "latency": (
        ("turn_latency",),
        analytics.latency,
        analytics.LatencyReport,
        "How long turns take, in percentiles",
    ),
    "thread-changes": (
        ("thread_changes",),
        analytics.thread_changes,
        analytics.ThreadChangeReport,
        "Changes of conversation and the tokens left behind",
    ),
    "media": (
        ("media",),
        analytics.media,
        analytics.MediaReport,
        "Media that came in, by kind (sizes and processing times are not recorded yet)",
    ),
    "gateway": (
        ("gateway_health",),
        analytics.gateway_health,
        analytics.HealthReport,
        "Sends, statuses and webhooks",
    ),
}


def _add_figures(path: str, of: tuple[str, ...], ask: Ask, kind: type[Any], summary: str) -> None:
    @router.get(
        f"/analytics/{path}",
        summary=summary,
        name=f"analytics_{path.replace('-', '_')}",
        tags=["analytics"],
        responses=answers(kind, "Figures over time.", {"position": 42}),
    )
    async def figures(  # noqa: PLR0913 - every filter is a parameter
        request: Request,
        caller: Figures,
        *,
        bot: BotName = "",
        since: Since = None,
        until: Until = None,
        per: Per = "day",
        as_of: AsOf = None,
        min_position: MinPosition = None,
    ) -> Response:
        read = read_for(request, caller, bot)
        span = await read.run(lambda: Span(_instant(since), _instant(until), per))
        return await _answer(read, of, lambda views: ask(views, span), as_of, min_position)

    figures.__doc__ = f"{summary}, of one bot."


def _instant(text: str | None) -> int | None:
    if text is None:
        return None
    moment = parse(text)
    if isinstance(moment, int):
        msg = f"{text!r} is a position: give an instant with its zone"
        raise UnclearMoment(msg)
    return micros(moment)


for _path, (_of, _ask, _kind, _summary) in _FIGURES.items():
    _add_figures(_path, _of, _ask, _kind, _summary)


async def _answer(
    read: Read,
    of: tuple[str, ...],
    ask: Callable[[Views], Any],
    as_of: str | None,
    min_position: int | None = None,
) -> Response:
    """Answer from the live views, or from those of the moment that is asked about."""
    await read.reflected(of, min_position)
    if as_of is None or as_of.strip() in {"", "now"}:
        found = await read.run(lambda: ask(read.bot.views))
        reached: Position | None = getattr(found, "position", None)
        if reached is None:
            reached = await read.run(lambda: read.bot.reached(of))
        return await read.answer(reached, lambda: shown(found))
    position = await read.position(as_of)
    views = await read.past(position, of)
    return await read.answer(position, lambda: shown(ask(views)))
