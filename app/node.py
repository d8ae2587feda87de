"""One node: its bots under one roof, and the door that leads to each of them.

A bot whose log cannot be reached does not harm the others: its webhooks are answered with 503, and
it is tried again until it can be opened. A bot whose log has lost what this process knows of it (a
failover to a standby that lagged) is closed with all that rests on it and opened anew
(docs/decisions/0010-a-log-is-recognised-over-every-connection.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

import structlog

from app import stores
from app.access import KeyTable
from app.api.callers import Gate
from app.api.desks import Desks, Take
from app.api.ingress import WebhookIngress
from app.api.metrics import REFUSALS, WEBHOOKS, Numbers
from app.api.rates import Rates
from app.api.server import BotReadiness, Readiness, create_app
from app.bot import Bot, open_bot
from app.caches import Registry, figures_of
from app.conversation.facts import Delivery, Odd
from app.conversation.slots import Slots
from app.outside import open_outside
from app.reads import RunningBot
from app.release import release
from app.settings import Settings
from app.worlds import World
from eventstore.errors import EventStoreError, LogUnavailable, LogWentBack

_log = structlog.get_logger(__name__)
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
_LOOK_SECONDS: Final = 0.5
"""How soon it is noticed that a log went back: heartbeats find it out."""

_AFTER_LOSS: Final = 5.0
"""Seconds until a bot is opened anew on a log that went back; twice as many with each time, since a
name that leads to two servers in turn must not make us write on both for long."""

_LONGEST_AFTER_LOSS: Final = 300.0
_STRANGERS: Final = "new people, and those who are not in memory, get 503"
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
        self.losses = 0
        """How often its log lost what this process knew of it."""
        self._slots = slots
        self._open = AsyncExitStack()
        self._closing: asyncio.Task[None] | None = None

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

    async def _unreachable(self, _: Delivery) -> Odd:
        msg = f"the bot {self.bot!r} is not open: {self.reason}"
        raise LogUnavailable(msg)

    async def open(self) -> None:
        """Open the bot and let it work. Raises what keeps it from that."""
        outside = open_outside(
            self.settings, openai_url=self.world.openai_url, whapi_url=self.world.whapi_url
        )
        async with AsyncExitStack() as opening:
            bot = await opening.enter_async_context(open_bot(self.settings, outside, self._slots))
            self.reads = RunningBot(bot)
            self._open = opening.pop_all()
            self.running = bot

    async def keep_open(self) -> None:
        """Open the bot whenever it is not, and anew when its log went back; until cancelled."""
        while True:
            if self.running is None:
                await self._keep_trying()
            self._lose(await self._loss())
            await self.close()
            await asyncio.sleep(self._pause)

    async def _loss(self) -> LogWentBack:
        """Return when the bot's log turns out to have lost what this process knows of it."""
        while True:
            failure = None if self.running is None else self.running.writer.last_failure
            if isinstance(failure, LogWentBack):
                return failure
            await asyncio.sleep(_LOOK_SECONDS)

    def _lose(self, loss: LogWentBack) -> None:
        """Take nothing in any more: what is in memory is about another past."""
        bot, self.running = self.running, None
        if bot is not None:
            bot.hurry()  # a turn can record nothing, and so sends nothing
        self.losses += 1
        self.reason = _after(loss)
        _log.error("LOG_WENT_BACK", bot=self.bot, error=str(loss), seconds=self._pause, alert=True)

    @property
    def _pause(self) -> float:
        return min(_AFTER_LOSS * 2.0 ** (self.losses - 1), _LONGEST_AFTER_LOSS)

    async def _keep_trying(self) -> None:
        """Return when the bot is open; look whether its stores answer beside the event loop."""
        pause = _FIRST_PAUSE
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                await asyncio.to_thread(self._probe)
                await self.open()
            except Exception as error:  # noqa: BLE001 - were this to end, nobody would know
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
        """Close the bot; what goes wrong there is logged, and does not keep others from it.

        One that is being closed already is waited for.
        """
        if self._closing is None or self._closing.done():
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        reads, self.reads = self.reads, None
        try:
            if reads is not None:
                await reads.close()
            await self._open.aclose()
        except Exception as error:  # noqa: BLE001 - the next one is to be closed as well
            _log.error("BOT_CLOSE_FAILED", bot=self.bot, error=f"{type(error).__name__}: {error}")
        self.running = None

    def numbers(self) -> dict[str, float]:
        """Return what `/metrics` shows of the bot; never waits."""
        bot, reads = self.running, self.reads
        return ({} if bot is None else bot.numbers()) | ({} if reads is None else reads.numbers())

    def ready(self) -> BotReadiness:
        """Tell whether the bot takes traffic."""
        bot = self.running
        if bot is None:
            return BotReadiness(bot=self.bot, status="not ready", reason=self.reason)
        # What this process wrote is told at once; what others wrote, when it has been looked at.
        position = max(bot.position, bot.todo.position)
        waiting = bot.writer.waiting
        failure = bot.writer.last_failure
        reason = "the log cannot be used: heartbeats fail" if bot.nodes.failing else ""
        if failure is not None:
            reason = "the log cannot be written"
        silent = bot.writer.busy_seconds
        if silent > self.settings.webhook_seconds:
            reason = f"the log has not answered for {silent:.0f} s"
        if isinstance(failure, LogWentBack):
            reason = _after(failure)
        if bot.nodes.replaced_by is not None:
            reason = "another process serves under this node's name"
        return BotReadiness(
            bot=self.bot,
            status="not ready" if reason else "ready",
            position=position,
            waiting=waiting,
            reason=reason or self._amiss(bot),
        )

    def _amiss(self, bot: Bot) -> str:
        """Say what does not go well though most traffic is taken: no other node would do better."""
        found = []
        silent = bot.identities.busy_seconds
        if silent > self.settings.webhook_seconds:
            found.append(f"the keyring has not answered for {silent:.0f} s: {_STRANGERS}")
        elif bot.identities.failing:
            found.append(f"no key can be made (KEYS_UNAVAILABLE in the log): {_STRANGERS}")
        if bot.follower.progress.unbuilt_seconds is not None:
            found.append("the read models are being built: who asks for them gets 503")
        return "; ".join(found)


def _after(loss: LogWentBack) -> str:
    return f"{loss}; what was read of it is dropped, and the bot is opened anew by itself"


@asynccontextmanager
async def open_seats(seats: Sequence[Seat]) -> AsyncIterator[None]:
    """Run every bot for as long as the context lasts. Raises if not one of them can be opened."""
    keeping: list[asyncio.Task[None]] = []
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
        keeping += [asyncio.ensure_future(seat.keep_open()) for seat in seats]
        yield
    finally:
        for task in keeping:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*keeping, return_exceptions=True)
        await asyncio.gather(*(seat.close() for seat in seats))


def door(
    settings: Settings,
    seats: Sequence[Seat],
    connections: Callable[[], Mapping[str, float]] = dict,
    *,
    keys: KeyTable | None = None,
) -> WebhookIngress:
    """Return the ASGI application of one node: webhooks in front, everything else behind.

    `settings` are the node's; `connections` are further numbers to show; `keys` are looked up,
    those of the settings if they are left out. Raises ValueError as `Desks` does.
    """
    outcomes: Counter[str] = Counter()
    rates, caches = Rates(settings.key_rate, settings.key_burst), Registry()
    caches.add("key_rates", rates.figures)
    gate = Gate(keys or KeyTable(settings), rates)

    def numbers() -> Numbers:
        bots = {seat.bot: seat.numbers() for seat in seats if seat.running is not None}
        # Those that have not happened yet, too: Prometheus sees no rise from nothing to 1.
        node = {f"webhooks_{name}": float(outcomes[name]) for name in {*WEBHOOKS, *outcomes}}
        node["bots_open"] = float(len(bots))
        node["logs_gone_back"] = float(sum(seat.losses for seat in seats))
        refused = gate.refused
        node |= {f"refused_{name}": float(refused[name]) for name in {*REFUSALS, *refused}}
        return Numbers(node | dict(connections()) | dict(caches.numbers()), bots)

    def count(outcome: str) -> None:
        outcomes[outcome] += 1

    ingress = WebhookIngress(
        create_app(
            release=release(),
            ready=lambda: _ready(seats),
            numbers=numbers,
            bots=lambda: {seat.bot: seat.reads for seat in seats if seat.reads is not None},
            gate=gate,
        ),
        Desks(seats, header=settings.webhook_header, loopback=settings.on_loopback),
        max_body=settings.max_body,
        seconds=settings.webhook_seconds,
        count=count,
    )
    caches.add("webhook_heads", partial(figures_of, ingress.heads))
    return ingress


def _ready(seats: Sequence[Seat]) -> Readiness:
    """Say that traffic may come as long as one bot can take it."""
    bots = [seat.ready() for seat in seats]
    down = [bot for bot in bots if bot.status != "ready"]
    amiss = [bot for bot in bots if bot.reason]
    only = bots[0] if len(bots) == 1 else None
    return Readiness(
        status="not ready" if len(down) == len(bots) else "ready",
        position=only.position if only else sum(bot.position for bot in bots),
        waiting=sum(bot.waiting for bot in bots),
        reason=only.reason if only else "; ".join(f"{bot.bot}: {bot.reason}" for bot in amiss),
        bots=bots,
    )
