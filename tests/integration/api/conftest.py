"""A bot with three people, and its door on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest

from app import access
from app.aggregates.access import Role
from tests.integration.cli.house import House
from tests.integration.turns.stage import Stage

Client = httpx2.AsyncClient


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Ana was answered, Ben's turn is parked, Eva waits; written before the bot opens."""
    with House(tmp_path / "data") as house:
        house.furnish()
    return house


@pytest.fixture
async def stage(tmp_path: Path, house: House) -> AsyncIterator[Stage]:
    """The bot runs over that log, its read models are built; nothing falls due within a test."""
    stage = Stage(tmp_path)
    try:
        await stage.open(quiet_seconds=3600, longest_seconds=7200)
        head = stage.bot.log.head().position
        await stage.until(lambda: stage.bot.follower.progress.position >= head)
        yield stage
    finally:
        await stage.close()


@pytest.fixture
async def local(stage: Stage) -> AsyncIterator[Client]:
    """Somebody on this machine, without a key."""
    async with httpx2.AsyncClient(base_url=stage.url, timeout=10) as client:
        yield client


@pytest.fixture
def key(stage: Stage) -> Callable[..., dict[str, str]]:
    """Make a key of a role; give the headers that show it. It is known at once."""

    def make(role: Role, **more: str) -> dict[str, str]:
        token = access.create(stage.settings(), role, by="test", expires_at=None, **more)[1]
        return {"authorization": f"Bearer {token}"}

    return make
