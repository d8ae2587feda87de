"""A bot that keeps `threads.json`: it follows the chats, and never stands in their way."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2

from tests.integration.turns.stage import Stage

ANA = "15550108001"


async def metric(stage: Stage, name: str) -> float:
    async with httpx2.AsyncClient(base_url=stage.url) as client:
        text = (await client.get("/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith(f"hilo_thread_files_{name}{{")]
    return float(line.rsplit(" ", 1)[1])


async def test_the_file_follows_the_chats_and_goes_when_it_is_not_wanted_any_more(
    stage: Stage, tmp_path: Path
) -> None:
    tmp = tmp_path / "tmp"
    wanted = {"thread_files": True, "thread_files_seconds": 0.1, "tmp": tmp}
    outside = await stage.open(**wanted)
    await outside.say(ANA)
    file = tmp / "threads.json"

    def knows_ana() -> bool:
        return file.exists() and ANA in json.loads(file.read_text("utf-8"))

    await stage.until(knows_ana)
    assert json.loads(file.read_text("utf-8"))[ANA]["threadId"].startswith("conv_")
    await stage.until(lambda: stage.bot.numbers()["thread_files_people"] == 1)
    assert await metric(stage, "failures_total") == 0
    await stage.settled()
    await stage.stop_bot()
    assert knows_ana()
    await stage.start_bot(tmp=tmp)
    await stage.until(lambda: not any(tmp.iterdir()))


async def test_a_directory_that_cannot_be_written_stops_nobody(
    stage: Stage, tmp_path: Path
) -> None:
    (tmp_path / "tmp").write_text("a file")
    outside = await stage.open(thread_files=True, tmp=tmp_path / "tmp")
    await outside.say(ANA)
    await stage.settled()
    await stage.until(lambda: stage.bot.numbers()["thread_files_failures"] == 1)
    assert await metric(stage, "failing") == 1
    assert stage.bot.schedule.failures["thread_files"] == 0
