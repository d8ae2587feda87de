"""`/v1/exports`: the log, or a read model, whole: JSONL, CSV or Parquet, made in the worker.

The answer is streamed as it is made and takes no memory here. It is complete only if the connection
ends as HTTP says it has to: one that breaks off is not an export.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import StreamingResponse

from app.api.callers import Caller, needs
from app.api.problem import Problem, ProblemError
from app.api.v1.events import Types
from app.api.v1.paging import stored_types
from app.api.v1.people import OfUser, refuse_no_pseudonym, stream_of
from app.api.v1.problems import no_such, no_such_model
from app.api.v1.reading import MOMENT, AsOf, BotName, Read, read_for
from app.api.v1.showing import PROBLEMS
from app.children import ChildFailed, Piped
from app.exports import Format, table_of
from app.projections import MODELS, UnknownModel, UnknownTable, named

router = APIRouter(prefix="/v1/exports", tags=["exports"])
Reader = Annotated[Caller, Depends(needs("events"))]
AsFormat = Annotated[Format, Query(alias="format", description="Parquet needs hilo[parquet]")]
Table = Annotated[
    str | None,
    Query(max_length=64, description="one of its tables or SQL views; default: the first"),
]

_MEDIA: Final[dict[Format, str]] = {
    "jsonl": "application/jsonl",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}
_USAGE: Final = 2
_TEXT: Final = {"schema": {"type": "string"}}
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The rows.",
        "content": {media.partition(";")[0]: _TEXT for media in _MEDIA.values()},
    },
    **PROBLEMS,
}


@router.get(
    "/log", summary="The log, event by event", response_class=StreamingResponse, responses=_ANSWERS
)
async def export_log(  # noqa: PLR0913 - every filter is a parameter
    request: Request,
    caller: Reader,
    *,
    bot: BotName = "",
    format_: AsFormat = "jsonl",
    user: OfUser = None,
    type: Types = None,  # noqa: A002 - the parameter's name
    since: Annotated[
        str | None,
        Query(
            description="after this position, or recorded after this instant",
            json_schema_extra={"anyOf": [{"type": "string", **MOMENT}, {"type": "null"}]},
        ),
    ] = None,
    until: AsOf = None,
) -> StreamingResponse:
    """Export what is in the log now, or up to `until`. Texts are opened for who may read them."""
    read = read_for(request, caller, bot)
    refuse_no_pseudonym(user)
    end = await read.position(until)
    start = 0 if since is None else await read.position(since)
    types = stored_types(read.bot.codec, type)
    words = [f"--after={start}", f"--position={end}", *(f"--type={name}" for name in types)]
    if user is not None:
        stream = await read.run(lambda: stream_of(read.bot.log, user))
        words.append(f"--stream={stream}")
    if caller.may("texts"):
        words.append("--open")
    return await _streamed(read, format_, words, "log")


@router.get(
    "/{name}",
    summary="A read model, row by row",
    response_class=StreamingResponse,
    responses=_ANSWERS,
)
async def export_model(  # noqa: PLR0913 - every filter is a parameter
    request: Request,
    caller: Reader,
    name: Annotated[str, Path(max_length=64, description="of `GET /v1/projections`")],
    *,
    bot: BotName = "",
    table: Table = None,
    format_: AsFormat = "jsonl",
    as_of: AsOf = None,
) -> StreamingResponse:
    """Export a read model's table as `docs/read-models.md` describes it, now or as of then.

    One with several tables gives its first; the answer's header `x-hilo-tables` names them all.
    """
    read = read_for(request, caller, bot)
    try:
        model = named(name, MODELS)
        chosen = table_of(model, table)
    except UnknownModel:
        raise ProblemError(no_such_model()) from None
    except UnknownTable as error:
        raise ProblemError(_cannot(str(error))) from None
    words = [f"--model={model.name}", f"--table={chosen}"]
    if as_of is not None and as_of.strip() not in {"", "now"}:
        position = await read.position(as_of)
        if not position:
            raise ProblemError(no_such("row"))
        words.append(f"--position={position}")
    if caller.may("numbers"):
        words.append("--open")
    answer = await _streamed(read, format_, words, model.name if table is None else chosen)
    answer.headers["x-hilo-table"] = chosen
    answer.headers["x-hilo-tables"] = ", ".join(model.tables)
    return answer


async def _streamed(read: Read, format_: Format, words: list[str], name: str) -> StreamingResponse:
    packed = format_ != "parquet" and "gzip" in read.request.headers.get("accept-encoding", "")
    words = [*words, f"--format={format_}", *(["--gzip"] if packed else [])]
    try:
        child = await read.bot.export(words)
    except ChildFailed as error:
        if error.code == _USAGE:
            raise ProblemError(_cannot(str(error))) from None
        raise ProblemError(_failed(str(error)), headers={"retry-after": "5"}) from None
    if child is None:
        raise ProblemError(_TOO_MANY, headers={"retry-after": "30"})
    headers = {
        "cache-control": "private",
        "content-disposition": f'attachment; filename="{name}.{format_}"',
        "content-encoding": "gzip" if packed else "identity",  # the worker packs, not this process
        "x-accel-buffering": "no",
    }
    return _Export(child, media_type=_MEDIA[format_], headers=headers)


class _Export(StreamingResponse):
    """Ends the child with the response, however that ends."""

    def __init__(self, child: Piped, *, media_type: str, headers: dict[str, str]) -> None:
        super().__init__(child.chunks(), media_type=media_type, headers=headers)
        self._child = child

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._child.kill()


def _cannot(detail: str) -> Problem:
    return Problem(
        type="/problems/cannot-export",
        title="This cannot be exported like that",
        status=422,
        detail=detail,
    )


def _failed(detail: str) -> Problem:
    return Problem(
        type="/problems/export-failed", title="The export failed", status=503, detail=detail
    )


_TOO_MANY: Final = Problem(
    type="/problems/too-many-exports",
    title="Too many exports at once",
    status=503,
    detail="Try again after Retry-After seconds, or on another node.",
)
