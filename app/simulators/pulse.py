"""Waiting for a condition without polling: whoever changes something beats the pulse."""

import asyncio
from collections.abc import Callable


class Pulse:
    """Wakes those who wait for a condition, each time something has changed.

    Belongs to one event loop; `beat` is cheap when nobody waits.
    """

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def beat(self) -> None:
        """Say that something changed: every waiting condition is looked at again."""
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def until(self, condition: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait until `condition()` holds; False when `seconds` went by first."""
        loop = asyncio.get_running_loop()
        deadline = None if seconds is None else loop.time() + seconds
        while not condition():
            future = loop.create_future()
            self._waiting.add(future)
            try:
                async with asyncio.timeout_at(deadline):
                    await future
            except TimeoutError:
                return condition()
            finally:
                self._waiting.discard(future)
        return True
