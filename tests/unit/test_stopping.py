"""What a server that is asked to stop says of the turns that it leaves."""

from __future__ import annotations

import asyncio

import pytest
import uvicorn

from app.stopping import Open, Server, Stop


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        (Open(), "No turn is at work."),
        (Open(waiting=1), "No turn is at work. 1 waits and goes on at the next start."),
        (
            Open(running=1, waiting=2),
            (
                "1 turn is at work and may end first; Ctrl-C again cancels what is left. "
                "2 wait and go on at the next start."
            ),
        ),
        (
            Open(waiting=3, shared=True),
            "No turn is at work. 3 wait and go on at another node.",
        ),
    ],
)
async def test_who_waits_for_an_answer_is_counted_and_where_it_comes_from_is_said(
    turns: Open, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    starting = asyncio.ensure_future(asyncio.sleep(0))
    stop = Stop(starting)
    stop.from_now_on(Server(uvicorn.Config("")), turns=lambda: turns)
    stop.ask()
    await starting
    assert capsys.readouterr().out == f"Stopping: no more webhooks are taken. {said}\n"
