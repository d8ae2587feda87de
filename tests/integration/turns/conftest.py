"""A stage for each test. Waits between attempts are short; nothing else differs from earnest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.conversation import backoff, dispatcher, run_ends, turn
from app.gateways import openai
from tests.integration.turns.stage import Stage


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """A stage on which nothing plays yet."""
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(backoff, "MAX_SECONDS", 0.2)
    monkeypatch.setattr(run_ends, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(turn, "BUSY_PAUSE", 300_000)
    monkeypatch.setattr(openai, "FIRST_POLL_SECONDS", 0.05)
    monkeypatch.setattr(dispatcher, "AFTER_FAILURE", 200_000)
    stage = Stage(tmp_path)
    yield stage
    await stage.close()
