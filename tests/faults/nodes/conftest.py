"""The outside world, and a PostgreSQL for each test alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.turns.outside import Outside
from tests.integration.turns.processes import simulators


@pytest.fixture
async def outside() -> AsyncIterator[Outside]:
    """Both simulators, in a process of their own that nobody kills."""
    async with simulators() as outside:
        yield outside
