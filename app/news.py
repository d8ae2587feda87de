"""Waking whoever waits for the next commit; it costs nothing while nobody does."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class News:
    """Commits of this process, told to tasks of one event loop."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._waiting: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = False

    def tell(self) -> None:
        """Say that something was committed. From any thread."""
        if not self._waiting or self._told or self._loop is None:
            return
        self._told = True
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._wake)

    async def wait(self, seconds: float) -> None:
        """Return after the next commit, at the latest after so many seconds."""
        self._loop = asyncio.get_running_loop()
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return
        finally:
            self._waiting.discard(event)

    def _wake(self) -> None:
        self._told = False
        for event in self._waiting:
            event.set()
