"""A running bot, as the read API sees it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import structlog

from app import control
from app.aggregates.catalogue import EVENT_CLASSES
from app.bot import Bot
from app.caches import figures_of
from app.children import Piped, piped
from app.conversation.identities import user_stream
from app.installation import handles_named
from app.projections import Views
from app.projections.bulk import worker_command
from app.projections.clients import ClientView
from app.projections.pasts import Pasts
from app.projections.skipping import SkipLedger
from app.skips import ControlLedger
from app.waiting import Waiting
from eventstore.codec import Codec
from eventstore.keyring import Handle
from eventstore.sealing import Sealer
from eventstore.store import LogReader
from eventstore.types import Position

_log = structlog.get_logger(__name__)
_CODEC: Final = Codec(EVENT_CLASSES)
LOOK_SECONDS: Final = 0.5
"""How soon what another node commits is noticed by those who follow the log."""

READERS: Final = 4
BUILD_EVENTS_PER_SECOND: Final = 100_000
"""The least that a rebuild of all read models is held to (docs/performance.md, `rebuild-all`)."""
BUILD_START_SECONDS: Final = 2.0
"""Until the process that builds them is at work."""
BUILD_LATE_SECONDS: Final = 5
"""When to ask again once it takes longer than that."""
EXPORTS: Final = 2
"""Of one bot at once."""


class RunningBot:
    """One bot's log, read models and keys, for reading; threads of its own, so traffic has its."""

    def __init__(self, bot: Bot) -> None:
        """Read what `bot` has open."""
        self._bot = bot
        self._pasts = Pasts(bot.settings.bot_directory)
        bot.caches.add("pasts", partial(figures_of, self._pasts))
        self.leaving = False
        """Whether the node is about to stop."""
        self._rebuild: asyncio.Task[None] | None = None
        self._exports: list[Piped] = []
        self._starting = 0
        self.readers = ThreadPoolExecutor(READERS, thread_name_prefix="hilo-api")
        self._waiting: Waiting[tuple[str, ...]] = Waiting(self._positions, self.readers)
        bot.follower.progress.listen(self._waiting.tell)

    @property
    def name(self) -> str:
        """The bot's name."""
        return self._bot.settings.bot

    @property
    def log(self) -> LogReader:
        """Its log."""
        return self._bot.log

    @property
    def views(self) -> Views:
        """Its read models."""
        return self._bot.views

    @property
    def codec(self) -> Codec:
        """What decodes every event that this release knows."""
        return _CODEC

    @property
    def sealer(self) -> Sealer:
        """What opens sealed fields."""
        return self._bot.sealer

    def reached(self, of: tuple[str, ...]) -> Position:
        """Return how far all of some read models are; of none: where the log ends."""
        return self._positions(frozenset((of,)))[of]

    async def reaches(self, of: tuple[str, ...], position: int, seconds: float) -> bool:
        """Wait until `reached` is a position; return False if it is not after so many seconds.

        Raises `TooManyWait`, and what keeps the log or the read models from being read.
        """
        return await self._waiting.until(of, position, seconds)

    @property
    def built_in(self) -> int:
        """Seconds until read models that are not built will be, by the pace that is measured."""
        events = max(self._bot.position, self._bot.todo.position)
        spent = self._bot.follower.progress.unbuilt_seconds or 0.0
        left = BUILD_START_SECONDS + events / BUILD_EVENTS_PER_SECOND - spent
        return math.ceil(left) if left > 0 else BUILD_LATE_SECONDS

    def _positions(self, places: frozenset[tuple[str, ...]]) -> Mapping[tuple[str, ...], Position]:
        known = self.views.standings() if any(places) else {}
        start = Position(0)
        return {
            of: min(known[name].cursor.position if name in known else start for name in of)
            if of
            else self.log.head().position
            for of in places
        }

    def numbers(self) -> dict[str, float]:
        """Return what `/metrics` shows; never waits."""
        waiting = self._waiting
        return {"reads_waiting": len(waiting), "reads_refused": waiting.refused}

    async def past(self, position: Position, models: tuple[str, ...]) -> Views:
        """Return read models as of a position; they stay open for a while."""
        return await self._pasts.views(position, models)

    @property
    def rebuilding(self) -> bool:
        """Whether a rebuild that somebody asked for here is under way."""
        return self._rebuild is not None and not self._rebuild.done()

    async def rebuild(self, model: str) -> bool:
        """Start to make a read model anew, beside this process; False if one is being made."""
        if self.rebuilding:
            return False
        command = worker_command(self._bot.settings.bot_directory, "rebuild", [model])
        self._rebuild = asyncio.ensure_future(_rebuilt(model, command))
        return True

    async def export(self, words: list[str]) -> Piped | None:
        """Start an export in the worker; None if there are too many. Raises `ChildFailed`."""
        self._exports = [one for one in self._exports if not one.ended]
        if len(self._exports) + self._starting >= EXPORTS:
            return None
        self._starting += 1
        try:
            directory = self._bot.settings.bot_directory
            child = await piped([*worker_command(directory, "export", ()), *words])
        finally:
            self._starting -= 1
        self._exports.append(child)
        return child

    def acted(self, action: str, *, by: str, why: str, about: tuple[str, ...]) -> None:
        """Record what an operator is going to do. Raises `LogUnavailable`."""
        control.acted(self._bot.settings, action, bot=self.name, why=why, about=about, by=by)

    def ledger(self, by: str) -> SkipLedger:
        """Return where skipped events are recorded, as somebody's act."""
        return ControlLedger(self._bot.settings, self.name, by=by)

    async def news(self) -> None:
        """Return when the log goes on, or soon."""
        await self._bot.news.wait(LOOK_SECONDS)

    async def client(self, pseudonym: str) -> ClientView:
        """Return what is known of a client; never fails."""
        return await self._bot.clients.get(user_stream(pseudonym))

    async def read_profile_again(self, person: str) -> str | None:
        """Begin to read name and labels of somebody again; return their pseudonym, if any."""
        loop = asyncio.get_running_loop()
        pseudonym = await loop.run_in_executor(self.readers, self._pseudonym_of, person)
        if pseudonym is not None:
            await self._bot.profiles.read_again(user_stream(pseudonym))
        return pseudonym

    def _pseudonym_of(self, person: str) -> str | None:
        handles = handles_named(person)
        pseudonym = self._bot.keyring.find(handles) if handles else None
        if pseudonym is None and not (person.isascii() and person.isalnum()):
            return None
        pseudonym = pseudonym or person
        return pseudonym if self._bot.log.stream_version(user_stream(pseudonym)) else None

    def handles_of(self, pseudonym: str) -> tuple[Handle, ...]:
        """Return by what a person is known. Raises `KeyringError`."""
        return self._bot.keyring.handles_of(pseudonym)

    async def close(self) -> None:
        """Let go of the past, of the threads, and of a rebuild: the next one goes on there."""
        self.leaving = True
        await self._waiting.close()
        for child in self._exports:
            await child.kill()
        if self._rebuild is not None:
            self._rebuild.cancel()
            await asyncio.gather(self._rebuild, return_exceptions=True)
        await self._pasts.close()
        self.readers.shutdown(wait=False, cancel_futures=True)


async def _rebuilt(model: str, command: list[str]) -> None:
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        code = await child.wait()
    except asyncio.CancelledError:
        child.terminate()
        await child.wait()
        raise
    _log.info("PROJECTION_REBUILT", model=model, exit_code=code)
