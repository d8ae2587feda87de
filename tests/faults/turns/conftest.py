"""The outside world and a server that can be killed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.turns.outside import Outside
from tests.integration.turns.processes import Server, simulators


@pytest.fixture
async def outside() -> AsyncIterator[Outside]:
    """Both simulators, in a process of their own that nobody kills."""
    async with simulators() as outside:
        yield outside


@pytest.fixture
async def server(outside: Outside, tmp_path: Path) -> AsyncIterator[Server]:
    """A server in an empty directory, not started yet."""
    server = Server(outside, tmp_path)
    yield server
    await server.close()
