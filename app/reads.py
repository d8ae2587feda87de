"""A running bot, as the read API sees it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

from app.bootstrap import Bot
from app.installation import EVENT_CLASSES
from app.projections import Views
from app.projections.pasts import Pasts
from eventstore.codec import Codec
from eventstore.keyring import Handle
from eventstore.sealing import Sealer
from eventstore.store import LogReader
from eventstore.types import Position

_CODEC: Final = Codec(EVENT_CLASSES)
LOOK_SECONDS: Final = 0.5
"""How soon what another node commits is noticed by those who follow the log."""

READERS: Final = 4


class RunningBot:
    """One bot's log, read models and keys, for reading; threads of its own, so traffic has its."""

    def __init__(self, bot: Bot) -> None:
        """Read what `bot` has open."""
        self._bot = bot
        self._pasts = Pasts(bot.settings.bot_directory)
        self.readers = ThreadPoolExecutor(READERS, thread_name_prefix="hilo-api")

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

    async def past(self, position: Position, models: tuple[str, ...]) -> Views:
        """Return read models as of a position; they stay open for a while."""
        return await self._pasts.views(position, models)

    async def news(self) -> None:
        """Return when the log goes on, or soon."""
        await self._bot.news.wait(LOOK_SECONDS)

    def handles_of(self, pseudonym: str) -> tuple[Handle, ...]:
        """Return by what a person is known. Raises `KeyringError`."""
        return self._bot.keyring.handles_of(pseudonym)

    async def close(self) -> None:
        """Let go of the past, and of the threads."""
        await self._pasts.close()
        self.readers.shutdown(wait=False, cancel_futures=True)
