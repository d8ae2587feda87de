"""Waiting for a condition without polling: whoever changes something beats the pulse."""

import asyncio
from collections.abc import Callable


class Pulse:
    """Wakes those who wait for a condition, each time something has changed.

    Belongs to one event loop; `beat` is cheap when nobody waits.
    """

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()
        self._ended = False

    def beat(self) -> None:
        """Say that something changed: every waiting condition is looked at again."""
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def end(self) -> None:
        """Say that nothing will change any more: nobody waits from now on."""
        self._ended = True
        self.beat()

    async def until(self, condition: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait until `condition()` holds; False when `seconds` went by, or all ended, first."""
        loop = asyncio.get_running_loop()
        deadline = None if seconds is None else loop.time() + seconds
        while not condition() and not self._ended:
            future = loop.create_future()
            self._waiting.add(future)
            try:
                async with asyncio.timeout_at(deadline):
                    await future
            except TimeoutError:
                return condition()
            finally:
                self._waiting.discard(future)
        return condition()
