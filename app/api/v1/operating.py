"""`POST /v1/projections/{name}/…`: pause, resume and rebuild a read model, or skip an event (G7).

What an operator does is in the control log, with the key's id as who and with the reason that they
have to give, before it is done.
"""

from __future__ import annotations

from collections.abc import Callable
from email.message import Message
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, Field

from app.api.callers import Caller, needs
from app.api.problem import Problem, ProblemError
from app.api.v1.problems import no_such_model
from app.api.v1.reading import BotName, Read, read_for
from app.api.v1.showing import answers, problem
from app.projections import MODELS, NotThatState, ReadModel, Standing, UnknownModel, Views, named
from app.projections import operating as models
from eventstore.types import Position

Operator = Annotated[Caller, Depends(needs("operate"))]


async def _is_json(request: Request, _: Operator) -> None:
    """Refuse a body that does not say that it is JSON. Raises `ProblemError`.

    What an operator may do is not for a page's form to ask, which can send any other type.
    """
    sent = Message()
    sent["content-type"] = request.headers.get("content-type", "")
    kind = sent.get_content_type()
    if kind != "application/json" and not kind.endswith("+json") and await request.body():
        raise ProblemError(_NOT_JSON)


router = APIRouter(prefix="/v1/projections", tags=["operating"], dependencies=[Depends(_is_json)])
Name = Annotated[str, Path(max_length=64, description="a read model of `GET /v1/projections`")]


class Reason(BaseModel):
    """Why it is done."""

    why: str = Field(
        min_length=1,
        max_length=500,
        pattern=r"^\S",
        description="kept in the control log: nothing of people in it",
        examples=["deploying 1.4"],
    )


class SkipReason(Reason):
    """Which event is passed over, and why."""

    position: int = Field(ge=1, le=2**62, description="the event's place", examples=[42])


class Operated(msgspec.Struct, frozen=True):
    """How the read model stands now."""

    name: str
    state: str
    position: int
    error: str | None = None


class Asked(msgspec.Struct, frozen=True):
    """What has been started: `GET /v1/projections` tells how it goes."""

    name: str
    started: bool = True


_NOT_JSON: Final = Problem(
    type="/problems/not-json",
    title="The body is not sent as JSON",
    status=415,
    detail="Send the header content-type: application/json with it; curl sends another unless it "
    "is told: curl --json, or -H 'content-type: application/json'.",
)
_STANDING: Final = {"name": "usage", "state": "paused", "position": 42, "error": "paused by …"}
_DONE: Final = {
    **answers(Operated, "How it stands now.", _STANDING),
    400: problem("The body is no text."),
    413: problem("The body is too large."),
    415: problem("The body is not sent as `content-type: application/json`."),
}
_STARTED: Final[dict[int | str, dict[str, Any]]] = {
    202: answers(Asked, "It is under way.", {"name": "usage", "started": True})[200],
    **{status: said for status, said in _DONE.items() if status != 200},  # noqa: PLR2004
}


@router.post("/{name}/pause", summary="Stop a read model where it is", responses=_DONE)
async def pause(
    request: Request, caller: Operator, name: Name, reason: Reason, *, bot: BotName = ""
) -> Response:
    """Stop it until it is resumed; its rows stand still and stay readable."""
    read, model = _meant(request, caller, bot, name)

    def work(views: Views) -> Standing:
        by = _record(read, "pause", model, reason.why)
        return models.pause(views, model, by=by, why=reason.why)

    return await _operated(read, work)


@router.post("/{name}/resume", summary="Let a read model go on", responses=_DONE)
async def resume(
    request: Request, caller: Operator, name: Name, reason: Reason, *, bot: BotName = ""
) -> Response:
    """Let a paused one follow the log again, and a parked one try its event again."""
    read, model = _meant(request, caller, bot, name)

    def work(views: Views) -> Standing:
        models.refuse_to_resume(views, model)  # before it is on record
        _record(read, "resume", model, reason.why)
        return models.resume(views, model)

    return await _operated(read, work)


@router.post("/{name}/skip", summary="Let a parked read model pass over an event", responses=_DONE)
async def skip(
    request: Request, caller: Operator, name: Name, reason: SkipReason, *, bot: BotName = ""
) -> Response:
    """Pass over one event that it cannot take, for good: rebuilds do so, too."""
    read, model = _meant(request, caller, bot, name)

    def work(views: Views) -> Standing:
        by = _by(read)
        models.skip(
            views,
            read.bot.log,
            model,
            read.bot.ledger(by),
            position=Position(reason.position),
            by=by,
            why=reason.why,
        )
        return views.standings()[model.name]

    return await _operated(read, work)


@router.post(
    "/{name}/rebuild",
    summary="Make a read model anew from the log",
    status_code=202,
    responses=_STARTED,
)
async def rebuild(
    request: Request, caller: Operator, name: Name, reason: Reason, *, bot: BotName = ""
) -> Response:
    """Start it in a process of its own; what is live answers until the new rows take its place."""
    read, model = _meant(request, caller, bot, name)
    if read.bot.rebuilding:
        raise ProblemError(_conflict("another rebuild of this bot is under way"))
    await read.run(lambda: _record(read, "rebuild", model, reason.why))
    if not await read.bot.rebuild(model.name):
        raise ProblemError(_conflict("another rebuild of this bot is under way"))
    body = msgspec.json.encode(Asked(model.name))
    return Response(body, status_code=202, media_type="application/json")


def _meant(request: Request, caller: Caller, bot: str, name: str) -> tuple[Read, ReadModel]:
    read = read_for(request, caller, bot)
    try:
        return read, named(name, MODELS)
    except UnknownModel:
        raise ProblemError(no_such_model()) from None


def _by(read: Read) -> str:
    caller = read.caller
    return f"key {caller.key}" if caller.role != "local" else "this machine, without a key"


def _record(read: Read, verb: str, model: ReadModel, why: str) -> str:
    """Record what is going to be done; return by whom. Raises `LogUnavailable`."""
    by = _by(read)
    read.bot.acted(f"projections {verb}", by=by, why=why.strip(), about=(model.name,))
    return by


async def _operated(read: Read, work: Callable[[Views], Standing]) -> Response:
    def operate() -> Standing:
        views = Views(read.bot.views.path)  # the follower's own connection writes for it alone
        try:
            return work(views)
        finally:
            views.close()

    try:
        standing = await read.run(operate)
    except NotThatState as error:
        raise ProblemError(_conflict(str(error))) from None
    shown = Operated(standing.model, standing.state, standing.cursor.position, standing.error)
    return Response(msgspec.json.encode(shown), media_type="application/json")


def _conflict(detail: str) -> Problem:
    return Problem(
        type="/problems/not-that-state",
        title="The read model is not in a state for that",
        status=409,
        detail=detail,
    )
