"""The job `bot_keys`: what belongs to no single person is unreadable after 90 days.

Bodies of unknown kinds, groups and channels are sealed under the bot's key of the month; the key is
destroyed when its month has been over for so long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Final

from eventstore.keyring import Keyring

DAYS: Final = 90


def bot_keys(keyring: Keyring, readers: Executor) -> Callable[[], Awaitable[str]]:
    """Return the job's work."""

    async def work() -> str:
        loop = asyncio.get_running_loop()
        destroyed = await loop.run_in_executor(readers, keyring.expire_bot_keys, DAYS)
        return f"destroyed {', '.join(destroyed)}" if destroyed else "no key is old enough"

    return work
