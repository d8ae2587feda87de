"""What the door says of itself, and to those who ask for what is not there."""

from __future__ import annotations

import pytest

from app.api.callers import Gate
from app.api.server import Numbers, Readiness, create_app
from tests.unit.api.asgi import Answer, ask
from tests.unit.api.no_keys import NoKeys


async def get(path: str, method: str = "GET", reason: str = "") -> Answer:
    state = Readiness(
        status="not ready" if reason else "ready", position=7, waiting=0, reason=reason
    )
    app = create_app(
        release="1",
        ready=lambda: state,
        numbers=lambda: Numbers({}, {}),
        bots=dict,
        gate=Gate(NoKeys()),
    )
    return await ask(app, path=path, method=method)


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
    assert (await get("/readyz")).status == 200
    answer = await get("/readyz", reason="the log cannot be written")
    assert answer.status == 503
    assert answer.json["position"] == 7
