"""The door for people and machines: health, readiness and the machine's own numbers.

FastAPI serves everything where somebody waits; webhooks are taken before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from fastapi import FastAPI, Request, Response
from msgspec.json import schema_components
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware

from app.api import hooks
from app.api.bounds import BoundedBodies
from app.api.callers import Caller, Gate
from app.api.metrics import CONTENT_TYPE as METRICS_TYPE
from app.api.metrics import Metrics, Numbers
from app.api.problem import CONTENT_TYPE, Problem, register_problems
from app.api.v1 import events, exports, fleet, operating, stream, users
from app.api.v1.reading import BotReads
from app.api.v1.showing import SCHEMAS


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"
    release: str = Field(examples=["0.1.0"])


Status = Literal["ready", "not ready"]


class BotReadiness(BaseModel):
    """Whether one bot takes its webhooks; they are answered with 503 if not."""

    bot: str = Field(examples=["default"])
    status: Status
    position: int = Field(default=0, description="last position of the bot's log", examples=[1234])
    waiting: int = Field(default=0, description="appends that are not durable yet", examples=[0])
    reason: str = Field(
        default="", description="why it is not ready; or, if it is, what does not go well"
    )


class Verdict(BaseModel):
    """Whether traffic may be sent here, and nothing else: what strangers are told."""

    status: Status


class Readiness(Verdict):
    """Whether traffic may be sent here: as long as one bot takes it."""

    position: int = Field(description="events in the logs of all bots", examples=[1234])
    waiting: int = Field(description="appends that are not durable yet", examples=[0])
    reason: str = Field(default="", description="of which bot what does not go well")
    bots: list[BotReadiness] = []


COMPRESSION: Final = 3
"""Of gzip: a page of 100 events takes 0.1 ms instead of 0.7 ms at 9, and is a twelfth larger."""


_PLAIN = {
    404: Problem(
        type="/problems/no-such-page",
        title="There is nothing here",
        status=404,
        detail="Look in /v1/openapi.json for what there is.",
    ),
    405: Problem(
        type="/problems/method-not-allowed",
        title="This is not asked with that method",
        status=405,
        detail="The Allow header of this answer names the methods that are.",
    ),
}


async def _plain(_: Request, error: Exception) -> Response:
    """Answer what the router itself refuses."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for its statuses alone
    problem = _PLAIN[error.status_code]
    return Response(
        problem.encode(),
        status_code=problem.status,
        media_type=CONTENT_TYPE,
        headers=dict(error.headers or {}),
    )


def create_app(
    *,
    release: str,
    ready: Callable[[], Readiness],
    numbers: Callable[[], Numbers],
    bots: Callable[[], Mapping[str, BotReads]],
    gate: Gate,
) -> FastAPI:
    """Return the application.

    `ready`, `numbers` and `bots` (those that are open, by name) are asked at each request and never
    wait. `gate` lets callers in.
    """
    app = FastAPI(
        title="Hilo",
        version=release,
        summary="A WhatsApp bot whose append-only log is the only truth.",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would tell strangers which paths there are
    )
    register_problems(app)
    for status in _PLAIN:
        app.add_exception_handler(status, _plain)
    metrics = Metrics(numbers)

    @app.get("/healthz", summary="Is the process alive?")
    async def healthz() -> Health:
        return Health(release=release)

    @app.get(
        "/readyz",
        summary="May traffic be sent here?",
        responses={503: {"model": Readiness | Verdict, "description": "Not now."}},
    )
    async def readyz(request: Request, response: Response) -> Readiness | Verdict:
        """The status is for everybody; which bots, and why, for this machine and for keys."""
        state = ready()
        if state.status != "ready":
            response.status_code = 503
            response.headers["retry-after"] = "1"
        return _told(state, await gate.sees(request, "figures"))

    @app.get("/metrics", summary="Numbers for Prometheus.", response_class=Response)
    async def show_metrics() -> Response:
        return Response(metrics.text(), media_type=METRICS_TYPE)

    app.state.bots, app.state.gate, app.state.streams = bots, gate, {}
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=COMPRESSION)
    app.add_middleware(BoundedBodies)
    for router in (
        hooks.router,
        stream.router,
        events.router,
        users.router,
        fleet.router,
        operating.router,
        exports.router,
    ):
        app.include_router(router)
    plain = app.openapi
    app.openapi = lambda: _with_schemas(plain())  # type: ignore[method-assign]
    return app


def _told(state: Readiness, caller: Caller | None) -> Readiness | Verdict:
    """Return what somebody may know: a key of one bot opens nothing of the others."""
    if caller is None:
        return Verdict(status=state.status)
    if not caller.bot:
        return state
    own = [bot for bot in state.bots if bot.bot == caller.bot]
    return Readiness(
        status=state.status,
        position=sum(bot.position for bot in own),
        waiting=sum(bot.waiting for bot in own),
        reason="; ".join(bot.reason for bot in own if bot.reason),
        bots=own,
    )


def _with_schemas(document: dict[str, Any]) -> dict[str, Any]:
    """Add what msgspec says of the answers to the OpenAPI document."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    (_,), problem = schema_components([Problem], ref_template="#/components/schemas/{name}")
    schemas.update(SCHEMAS)
    schemas.update(problem)
    return document
