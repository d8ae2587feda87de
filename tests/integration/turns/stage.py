"""A bot in this process between two simulators, all of it over real HTTP on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import httpx2
from pydantic import SecretStr

from app.api.ingress import WebhookIngress
from app.bot import Bot, open_bot
from app.node import Seat, door
from app.outside import open_outside
from app.settings import Settings, load
from app.simulators import OpenAISimulator, WhapiSimulator, serving
from eventstore.codec import Event
from tests.integration.turns.judging import Evidence, Story, faults
from tests.integration.turns.outside import PATIENCE, Outside

SHORT: dict[str, object] = {
    "quiet_seconds": 0.1,
    "longest_seconds": 1.0,
    "orphan_start_seconds": 0.05,
    "orphan_every_seconds": 0.2,
    "send_seconds": 0.4,
    "delivery_margin_seconds": 0.1,
    "beat_seconds": 0.2,
    "dead_seconds": 1.0,
    "run_seconds": 1.5,
    "busy_seconds": 5.0,
}


class Stage:
    """One bot, opened and closed as often as a test wants, and the world around it."""

    outside: Outside
    bot: Bot
    seat: Seat
    door: WebhookIngress
    url: str

    def __init__(self, directory: Path, **always: object) -> None:
        """Play in a directory; settings that are given here hold whenever the bot starts."""
        self.directory = directory
        self._always = always
        self._world = contextlib.AsyncExitStack()
        self._bot = contextlib.AsyncExitStack()

    async def open(self, **settings: object) -> Outside:
        """Start the world and the bot; return the world."""
        openai = await self._world.enter_async_context(serving(OpenAISimulator(seed=3)))
        whapi = await self._world.enter_async_context(serving(WhapiSimulator(seed=3)))
        self.outside = Outside(openai, whapi)
        self._world.push_async_callback(self.outside.close)
        await self.start_bot(**settings)
        return self.outside

    async def start_bot(self, **changed: object) -> None:
        """Start the bot on this stage's directory, and let the gateway deliver to it."""
        settings = self.settings(**changed)
        outside = open_outside(
            settings,
            openai_url=f"{self.outside.openai_url}/v1",
            whapi_url=self.outside.whapi_url,
        )
        self.bot = await self._bot.enter_async_context(open_bot(settings, outside))
        self.seat = Seat.of(self.bot)
        self.door = door(settings, [self.seat])
        self.url = await self._bot.enter_async_context(serving(self.door))
        secret = settings.webhook_secret.get_secret_value()
        await self.outside.webhook(
            f"{self.url}/webhooks/whapi",
            first_delay=0.05,
            max_delay=0.2,
            headers={settings.webhook_header: secret} if secret else {},
        )

    def settings(self, **changed: object) -> Settings:
        """Return the settings of this stage's bot."""
        given = {
            **SHORT,
            "log_writer": "thread",
            "read_models": "thread",
            **self._always,
            **changed,
        }
        secret = given.pop("webhook_secret", "")
        return load(
            data=self.directory / "data",
            logs=self.directory / "logs",
            webhook_secret=SecretStr(str(secret)),
            **given,
        )

    async def stop_bot(self) -> None:
        """Close the bot in good order."""
        await self._bot.aclose()

    async def close(self) -> None:
        """Close everything."""
        await self._bot.aclose()
        await self._world.aclose()

    # -- looking ----------------------------------------------------------------------------------

    def story(self) -> Story:
        """Return the log as it is now."""
        return Story.of(self.bot.log)

    async def judge(self) -> list[str]:
        """Return what the judge finds."""
        outside = self.outside
        openai, whapi = await outside.openai_account(), await outside.whapi_account()
        return faults(Evidence(outside.asked, openai, whapi, self.story()))

    async def settled(self) -> Story:
        """Return the log when every promise is kept and nothing is open; fail if never."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while found := await self.judge():
            assert asyncio.get_running_loop().time() < deadline, "\n".join(found)
            await self.news()
        return self.story()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return as soon as a condition holds; fail if it never does."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not condition():
            assert asyncio.get_running_loop().time() < deadline, "it never came to that"
            await self.news()

    async def has(self, kind: type[Event], count: int = 1) -> Story:
        """Return the log as soon as it holds so many events of a kind."""
        await self.until(lambda: self.story().count(kind) >= count)
        return self.story()

    async def news(self) -> None:
        """Return after the next commit, or soon: not all that is waited for is in the log."""
        loop = asyncio.get_running_loop()
        committed = asyncio.Event()

        def tell(_: object) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(committed.set)

        listeners = self.bot.writer._listeners
        listeners.append(tell)
        try:
            async with asyncio.timeout(0.05):
                await committed.wait()
        except TimeoutError:
            return
        finally:
            listeners.remove(tell)

    async def post(self, body: bytes, **headers: str) -> httpx2.Response:
        """Deliver a webhook as the gateway would, and return the answer."""
        async with httpx2.AsyncClient(timeout=PATIENCE) as client:
            return await client.post(f"{self.url}/webhooks/whapi", content=body, headers=headers)
