"""Who is killed with -9, when, and who comes back, while people write.

A server alone is killed half-way and started again at once. Of several each is killed once; the
first stays away until the others have taken over what it held.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from app.aggregates.events import USER_EVENTS
from app.aggregates.user_state import BLANK, UserState, evolve
from app.conversation.agenda import holder_of
from app.demo.sending import Sender
from app.demo.server import Server
from app.demo.story import Course, Kill, Show
from app.demo.traffic import Plan
from app.demo.world import World
from app.stores import open_log
from eventstore.codec import Codec
from eventstore.store import LogReader
from eventstore.types import Position

_CODEC: Final = Codec(USER_EVENTS)
_BUSY_PATIENCE: Final = 10.0
_AWAY_SECONDS: Final = 30.0
"""How long the others may need at most until everything is taken over."""
_LOOK_SECONDS: Final = 0.1
_PAGE: Final = 5_000
_REPEATED_AFTER: Final = 10
"""How many people's first messages are delivered once more after a restart, at most."""


class Killer:
    """Kills the servers of a world, each in its turn, and starts them again."""

    def __init__(self, world: World, planned: Plan, course: Course, show: Show) -> None:
        """Nobody is killed before `work`."""
        self._world = world
        self._plan = planned
        self._course = course
        self._show = show
        self._one_at_a_time = asyncio.Lock()
        count = len(world.servers)
        self._shares = [(n + 1) * planned.messages / (count + 1) for n in range(count)]
        self._reached = [asyncio.Event() for _ in self._shares]

    def heard(self, sent: int) -> None:
        """Learn how many messages were written."""
        for share, reached in zip(self._shares, self._reached, strict=True):
            if sent >= share:
                reached.set()

    async def work(self, sender: Sender) -> None:
        """Return when everybody was killed and is back. Raises `ServerDied`."""
        async with asyncio.TaskGroup() as group:
            for server, reached in zip(self._world.servers, self._reached, strict=True):
                group.create_task(self._kill_in_turn(server, reached, sender))

    async def _kill_in_turn(self, server: Server, reached: asyncio.Event, sender: Sender) -> None:
        await reached.wait()
        alone = len(self._world.servers) == 1
        async with self._one_at_a_time:
            stays_away = not alone and not self._course.kills
            kill = await self._kill(server, sender, stays_away=stays_away)
            if not stays_away:
                await self._bring_back(server, kill, sender)
        if stays_away:
            await self._taken_over(server)
            self._show.step(f"everything that {server.name} held is taken over; starting it again")
            await self._bring_back(server, kill, sender)

    async def _kill(self, server: Server, sender: Sender, *, stays_away: bool) -> Kill:
        busy = max(1, min(10, self._course.users // 4))
        running = await self._world.outside.model_is_busy(busy, _BUSY_PATIENCE)
        await server.kill()
        kill = Kill(server.name, time.time_ns() // 1000, sender.messages, running)
        self._course.kills.append(kill)
        whom = "" if len(self._world.servers) == 1 else f" of {server.name}"
        then = "it stays away" if stays_away else "starting again"
        self._show.step(f"kill -9{whom}, with {running} answers in the making; {then}")
        return kill

    async def _bring_back(self, server: Server, kill: Kill, sender: Sender) -> None:
        await server.restart(self._world.server_settings)
        kill.down_seconds = time.time() - kill.at / 1e6
        await sender.repeat_some(self._plan, _REPEATED_AFTER)

    async def _taken_over(self, server: Server) -> None:
        """Return when a dead server holds nothing any more, or after a while in any case."""
        deadline = time.monotonic() + _AWAY_SECONDS
        log = await asyncio.to_thread(open_log, self._world.settings)
        try:
            holders = _Holders(log)
            while await asyncio.to_thread(holders.held_by, server.name):
                if time.monotonic() > deadline:
                    return
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            await asyncio.to_thread(log.close)


class _Holders:
    """Which node holds which runs and deliveries, as the log has it."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._after = Position(0)
        self._states: dict[str, UserState] = {}

    def held_by(self, node: str) -> int:
        """Read on, and return how many runs and deliveries a node holds."""
        while page := self._log.read(after=self._after, limit=_PAGE):
            self._after = page[-1].position
            for row in page:
                if row.stream.startswith("user/"):
                    event = _CODEC.decode(row.type, row.state)
                    before = self._states.get(row.stream, BLANK)
                    state = evolve(before, event, row.version, row.recorded_at)
                    self._states[row.stream] = state
        holders = (holder_of(state) for state in self._states.values())
        return sum(holder is not None and holder.node == node for holder in holders)
