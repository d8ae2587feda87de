"""How errors of the application look, and what they do not say."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI, HTTPException
from starlette.responses import StreamingResponse
from structlog.testing import capture_logs

from app.api.problem import Problem, ProblemError, of_status, register_problems
from tests.unit.api.asgi import Answer, Exchange, ask
from tests.unit.api.bodies import PHONE

LOST = Problem(
    type="/problems/no-such-user", title="No such user", status=404, detail="Look again."
)


def application() -> FastAPI:
    app = FastAPI()
    register_problems(app)

    @app.get("/lost")
    async def lost() -> None:
        raise ProblemError(LOST, headers={"x-hint": "elsewhere"})

    @app.get("/forbidden")
    async def forbidden() -> None:
        raise HTTPException(403, "Not you.", headers={"x-hint": "ask"})

    @app.get("/unmodified")
    async def unmodified() -> None:
        raise HTTPException(304)

    @app.get("/number/{number}")
    async def number(number: int) -> int:
        return number

    @app.get("/broken")
    async def broken() -> None:
        msg = f"cannot find {PHONE}"
        raise RuntimeError(msg)

    @app.get("/half")
    async def half() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"first"
            msg = f"cannot find {PHONE}"
            raise RuntimeError(msg)

        return StreamingResponse(pieces())

    return app


async def get(path: str, method: str = "GET") -> Answer:
    return await ask(application(), path=path, method=method)


async def test_a_problem_is_the_answer_as_it_was_raised() -> None:
    answer = await get("/lost")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-hint"] == "elsewhere"
    assert answer.json == {
        "type": "/problems/no-such-user",
        "title": "No such user",
        "status": 404,
        "detail": "Look again.",
    }


@pytest.mark.parametrize(
    ("path", "method", "status", "title"),
    [
        ("/nowhere", "GET", 404, "Not Found"),
        ("/lost", "DELETE", 405, "Method Not Allowed"),
        ("/forbidden", "GET", 403, "Forbidden"),
    ],
)
async def test_the_frameworks_own_errors_are_problems_too(
    path: str, method: str, status: int, title: str
) -> None:
    answer = await get(path, method)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json["title"], answer.json["status"]) == (title, status)


async def test_what_has_no_body_keeps_none() -> None:
    answer = await Exchange(path="/unmodified", method="GET").run(application())
    assert answer is not None
    assert (answer.status, answer.body) == (304, b"")


async def test_a_failed_validation_names_the_field_and_not_the_value() -> None:
    answer = await get(f"/number/x{PHONE}")
    assert answer.status == 422
    assert [error["pointer"] for error in answer.json["errors"]] == ["/path/number"]
    assert PHONE.encode() not in answer.body


async def test_an_unexpected_error_ends_here_and_does_not_say_its_message() -> None:
    with capture_logs() as lines:
        answer = await get("/broken")
    assert (answer.status, answer.json["type"]) == (500, "/problems/unexpected")
    (line,) = lines
    assert (line["event"], line["error"]) == ("API_ERROR", "RuntimeError")
    assert PHONE not in f"{lines} {answer.body!r}"


async def test_an_answer_that_breaks_half_way_is_logged_and_not_answered_twice() -> None:
    with capture_logs() as lines:
        exchange = Exchange([b""], path="/half", method="GET")
        await exchange.run(application())
    assert [line["event"] for line in lines] == ["API_ERROR"]
    starts = [sent for sent in exchange.sent if sent["type"] == "http.response.start"]
    assert len(starts) == 1
    assert PHONE not in str(lines)


def test_a_status_of_ones_own_is_a_problem_too() -> None:
    assert of_status(418).title == "I'm a Teapot"
    assert of_status(599, "Odd.") == Problem(title="Error", status=599, detail="Odd.")
