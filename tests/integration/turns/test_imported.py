"""Somebody whose thread was of the Assistants API goes on in a conversation filled from the log."""

from __future__ import annotations

import json
from typing import Any

from app.aggregates import events as e
from app.cli import main
from tests.integration.turns.judging import Story
from tests.integration.turns.stage import Stage

ANA = "15550103001"


def threads(story: Story) -> list[tuple[str, str]]:
    return [
        (type(told.event).__name__, told.event.reason)
        for told in story.all(e.ThreadStarted, e.ThreadReset)
        if isinstance(told.event, e.ThreadStarted | e.ThreadReset)
    ]


async def test_an_imported_thread_goes_on_in_a_new_conversation_that_knows_the_past(
    stage: Stage,
) -> None:
    home = stage.directory
    (home / "threads.json").write_text(json.dumps({ANA: {"threadId": "thread_old"}}))
    said = "".join(
        f"28/7/25, 10:{n:02} - {who}: {who} {n}\n" for n in range(30) for who in ("Ana", "Hotel")
    )
    (home / "chat.txt").write_text("28/7/25, 9:00 - Cifrado de extremo a extremo.\n" + said)
    data = str(home / "data")
    arguments = ["import", str(home / "threads.json"), str(home / "chat.txt"), "--user", ANA]
    zone = ["--me", "Hotel", "--timezone", "America/Bogota", "--data", data]
    assert main([*arguments, *zone]) == 0
    outside = await stage.open()
    await outside.say(ANA, "¿seguimos?")
    await outside.reads(ANA)
    story = await stage.settled()
    assert threads(story) == [
        ("ThreadStarted", "first_time"),
        ("ThreadReset", "gone"),
        ("ThreadStarted", "gone"),
    ]
    started = story.all(e.ThreadStarted)[1].event
    assert isinstance(started, e.ThreadStarted)
    items = await outside.items(started.thread)
    words = [_said(item) for item in items]
    assert words[:4] == [
        ("user", "Ana 0"), ("assistant", "Hotel 0"), ("user", "Ana 1"), ("assistant", "Hotel 1"),
    ]  # fmt: skip
    assert words[58:60] == [("user", "Ana 29"), ("assistant", "Hotel 29")]
    assert words[60][1].startswith("¿seguimos?")
    assert started.last_item == items[59]["id"]


def _said(item: dict[str, Any]) -> tuple[str, str]:
    return item["role"], item["content"][0]["text"]
