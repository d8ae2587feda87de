"""One node: its bots under one roof, and the door that leads to each of them.

A bot whose log cannot be reached does not harm the others: its webhooks are answered with 503, and
it is tried again until it can be opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import structlog

from app import stores
from app.access import KeyTable
from app.api.callers import Gate
from app.api.desks import Desks, Take
from app.api.ingress import WebhookIngress
from app.api.rates import Rates
from app.api.server import BotReadiness, Numbers, Readiness, create_app
from app.bot import Bot, open_bot
from app.conversation.facts import Delivery
from app.conversation.slots import Slots
from app.outside import open_outside
from app.reads import RunningBot
from app.release import release
from app.settings import Settings
from app.worlds import World
from eventstore.errors import EventStoreError, LogUnavailable

_log = structlog.get_logger(__name__)
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
_OUT_OF_REACH: Final = (EventStoreError, OSError, sqlite3.Error)
"""What may pass: the bot is tried again, and the others go on."""


class Seat:
    """A bot's place on this node: open, or out of reach and tried again."""

    def __init__(self, settings: Settings, world: World, slots: Slots) -> None:
        """Nothing is opened before `open`."""
        self.settings = settings
        self.world = world
        self.running: Bot | None = None
        self.reads: RunningBot | None = None
        self.reason = "it is being opened"
        """Why the bot is not open."""
        self._slots = slots
        self._open = AsyncExitStack()

    @classmethod
    def of(cls, bot: Bot) -> Seat:
        """Give a place to a bot that somebody else opened, and will close."""
        seat = cls(bot.settings, World("", "", ()), bot.slots.slots)
        seat.running = bot
        seat.reads = RunningBot(bot)
        return seat

    @property
    def bot(self) -> str:
        """The bot's name."""
        return self.settings.bot

    @property
    def channel(self) -> str:
        """Its channel; empty: any."""
        return self.settings.channel

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secret of its webhooks; empty: none is asked for."""
        secret = self.settings.webhook_secret.get_secret_value()
        return (secret,) if secret else ()

    @property
    def take(self) -> Take:
        """Its receiver, or one that takes nothing."""
        return self._unreachable if self.running is None else self.running.receiver

    async def _unreachable(self, _: Delivery) -> None:
        msg = f"the bot {self.bot!r} is not open: {self.reason}"
        raise LogUnavailable(msg)

    async def open(self) -> None:
        """Open the bot and let it work. Raises what keeps it from that."""
        outside = open_outside(
            self.settings, openai_url=self.world.openai_url, whapi_url=self.world.whapi_url
        )
        async with AsyncExitStack() as opening:
            self.running = await opening.enter_async_context(
                open_bot(self.settings, outside, self._slots)
            )
            self.reads = RunningBot(self.running)
            self._open = opening.pop_all()

    async def keep_trying(self) -> None:
        """Return when the bot is open; look whether its stores answer beside the event loop."""
        pause = _FIRST_PAUSE
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                await asyncio.to_thread(self._probe)
                await self.open()
            except _OUT_OF_REACH as error:
                self.failed(error)
            else:
                _log.info("BOT_OPENED", bot=self.bot)
                return

    def _probe(self) -> None:
        """Ask both stores something, where waiting for them harms nobody. Raises what is wrong."""
        stores.has_log(self.settings)
        stores.has_keyring(self.settings)

    def failed(self, error: Exception) -> None:
        """Note why the bot is not open."""
        self.reason = f"it cannot be opened ({type(error).__name__})"
        _log.error("BOT_UNREACHABLE", bot=self.bot, error=f"{type(error).__name__}: {error}")

    def hurry(self) -> None:
        """Let `close` wait for running turns no longer."""
        if self.running is not None:
            self.running.hurry()

    async def close(self) -> None:
        """Close the bot; what goes wrong there is logged, and does not keep others from it."""
        reads, self.reads = self.reads, None
        try:
            if reads is not None:
                await reads.close()
            await self._open.aclose()
        except Exception as error:  # noqa: BLE001 - the next one is to be closed as well
            _log.error("BOT_CLOSE_FAILED", bot=self.bot, error=f"{type(error).__name__}: {error}")
        self.running = None

    def ready(self) -> BotReadiness:
        """Tell whether the bot takes traffic."""
        bot = self.running
        if bot is None:
            return BotReadiness(bot=self.bot, status="not ready", reason=self.reason)
        position, waiting = bot.position, bot.writer.waiting
        reason = "" if bot.writer.last_failure is None else "the log cannot be written"
        if bot.nodes.replaced_by is not None:
            reason = "another process serves under this node's name"
        return BotReadiness(
            bot=self.bot,
            status="not ready" if reason else "ready",
            position=position,
            waiting=waiting,
            reason=reason,
        )


@asynccontextmanager
async def open_seats(seats: Sequence[Seat]) -> AsyncIterator[None]:
    """Run every bot for as long as the context lasts. Raises if not one of them can be opened."""
    trying: list[asyncio.Task[None]] = []
    try:
        failures: list[Exception] = []
        for seat in seats:
            try:
                await seat.open()
            except _OUT_OF_REACH as error:
                seat.failed(error)
                failures.append(error)
        if len(failures) == len(seats):
            raise failures[0]
        trying += [asyncio.ensure_future(s.keep_trying()) for s in seats if s.running is None]
        yield
    finally:
        for task in trying:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*trying, return_exceptions=True)
        await asyncio.gather(*(seat.close() for seat in seats))


def door(
    settings: Settings,
    seats: Sequence[Seat],
    connections: Callable[[], Mapping[str, float]] = dict,
) -> WebhookIngress:
    """Return the ASGI application of one node: webhooks in front, everything else behind.

    `settings` are the node's; `connections` are further numbers to show. Raises ValueError as
    `Desks` does.
    """
    outcomes: Counter[str] = Counter()
    gate = Gate(KeyTable(settings), Rates(settings.key_rate, settings.key_burst))

    def numbers() -> Numbers:
        bots = {seat.bot: seat.running.numbers() for seat in seats if seat.running is not None}
        node = {f"webhooks_{outcome}": float(count) for outcome, count in outcomes.items()}
        node["bots_open"] = float(len(bots))
        node |= {f"refused_{reason}": float(count) for reason, count in gate.refused.items()}
        return Numbers(node | dict(connections()), bots)

    def count(outcome: str) -> None:
        outcomes[outcome] += 1

    return WebhookIngress(
        create_app(
            release=release(),
            ready=lambda: _ready(seats),
            numbers=numbers,
            bots=lambda: {seat.bot: seat.reads for seat in seats if seat.reads is not None},
            gate=gate,
        ),
        Desks(seats, header=settings.webhook_header, loopback=settings.on_loopback),
        max_body=settings.max_body,
        count=count,
    )


def _ready(seats: Sequence[Seat]) -> Readiness:
    """Say that traffic may come as long as one bot can take it."""
    bots = [seat.ready() for seat in seats]
    down = [bot for bot in bots if bot.status != "ready"]
    only = bots[0] if len(bots) == 1 else None
    return Readiness(
        status="not ready" if len(down) == len(bots) else "ready",
        position=only.position if only else sum(bot.position for bot in bots),
        waiting=sum(bot.waiting for bot in bots),
        reason=only.reason if only else "; ".join(f"{bot.bot}: {bot.reason}" for bot in down),
        bots=bots,
    )
