"""Something that may wait for a disk, done again for whoever asks, and not too often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from anyio import to_thread


class Again:
    """Does `work` on a thread, once for all who wait, and at most once in `seconds`.

    Belongs to one event loop. However many ask, `work` is not done more often, nobody holds a
    thread while waiting, and nobody gets what was found before they asked.
    """

    def __init__(self, work: Callable[[], None], seconds: float) -> None:
        """Do nothing before somebody asks."""
        self._work = work
        self._seconds = seconds
        self._begun_at = float("-inf")
        self._coming: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        """Return when `work` has been done, begun after this call. Raises what it raises."""
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._do())
        await asyncio.shield(self._coming)

    async def _do(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._begun_at + self._seconds - loop.time()))
        self._coming = None  # whoever comes from now on waits for the next one
        self._begun_at = loop.time()
        await to_thread.run_sync(self._work)
