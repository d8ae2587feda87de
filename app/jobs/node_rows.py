"""The job `node_rows`: nodes that have been silent for over a day are forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Final

from eventstore.store import LogStore
from eventstore.types import Micros

SILENT_MICROS: Final = 86_400_000_000


def node_rows(log: LogStore, readers: Executor) -> Callable[[], Awaitable[str]]:
    """Return the job's work."""

    async def work() -> str:
        loop = asyncio.get_running_loop()
        before = Micros(log.now() - SILENT_MICROS)
        return f"{await loop.run_in_executor(readers, log.forget_nodes, before)} forgotten"

    return work
