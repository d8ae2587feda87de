"""What the door says of itself, and to those who ask for what is not there."""

from __future__ import annotations

import pytest

from app.api.callers import Gate
from app.api.metrics import Numbers
from app.api.server import BotReadiness, Readiness, Status, create_app
from tests.unit.api.asgi import Answer, ask
from tests.unit.api.no_keys import NoKeys

HERE = {"host": "127.0.0.1:3010"}
"""Somebody on this machine; without it, a name of somewhere else may have led here."""


async def get(
    path: str, method: str = "GET", reason: str = "", amiss: str = "", **headers: str
) -> Answer:
    status: Status = "not ready" if reason else "ready"
    reason = reason or amiss
    bot = BotReadiness(bot="sales", status=status, position=7, reason=reason)
    state = Readiness(status=status, position=7, waiting=0, reason=reason, bots=[bot])
    app = create_app(
        release="1",
        ready=lambda: state,
        numbers=lambda: Numbers({}, {}),
        bots=dict,
        gate=Gate(NoKeys()),
    )
    return await ask(app, path=path, method=method, headers=headers.items())


@pytest.mark.parametrize(
    ("path", "method", "status", "kind"),
    [
        ("/nowhere", "GET", 404, "/problems/no-such-page"),
        ("/healthz", "DELETE", 405, "/problems/method-not-allowed"),
    ],
)
async def test_what_is_not_there_is_a_problem_with_a_type_and_a_next_step(
    path: str, method: str, status: int, kind: str
) -> None:
    answer = await get(path, method)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["type"] == kind
    assert answer.json["detail"]


async def test_a_log_that_cannot_be_written_is_not_ready() -> None:
    assert (await get("/readyz", **HERE)).status == 200
    answer = await get("/readyz", reason="the log cannot be written", **HERE)
    assert answer.status == 503
    assert answer.json["position"] == 7
    assert answer.json["bots"][0]["reason"] == "the log cannot be written"


async def test_what_does_not_go_well_is_told_to_those_who_may_know_it() -> None:
    told = await get("/readyz", amiss="no key can be made", **HERE)
    assert (told.status, told.json["status"]) == (200, "ready")
    assert told.json["bots"][0]["reason"] == "no key can be made"
    assert (await get("/readyz", amiss="no key can be made")).json == {"status": "ready"}


@pytest.mark.parametrize(
    "stranger",
    [
        {},
        {**HERE, "x-forwarded-for": "203.0.113.9"},
        {"host": "hilo.example"},
        {"host": "hilo.example", "authorization": "Bearer hilo_0123456789_guessed"},
    ],
)
async def test_strangers_are_told_whether_it_is_ready_and_nothing_else(
    stranger: dict[str, str],
) -> None:
    ready = await get("/readyz", **stranger)
    assert (ready.status, ready.json) == (200, {"status": "ready"})
    down = await get("/readyz", reason="the log cannot be written", **stranger)
    assert (down.status, down.json) == (503, {"status": "not ready"})
    assert down.headers["retry-after"] == "1"
