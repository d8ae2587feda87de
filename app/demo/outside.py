"""The world around the bot, simulated: WhatsApp's gateway and OpenAI, in a process of their own."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from typing import Final

import httpx2
import msgspec

from app.demo.accounts import OpenAIAccount, WhapiAccount
from app.demo.processes import START_SECONDS, CannotStart, Place, end, environment
from app.demo.reset import LOST

MANNERS: Final = {
    "first_delay": 0.2,
    "max_delay": 1.0,
    "duplicates": 0.05,
    "scatter": 0.02,
    "senders": 16,
}
"""How the simulated gateway delivers: quick to try again, forgetful, and in no strict order."""

THINKING: Final = {"mean_ms": 400.0, "spread": 0.5}
"""How long the simulated model takes."""

FAULTS: Final = (
    {"match": "POST /messages/text", "kind": "disconnect_after", "rate": 0.04, "times": 0},
    {"match": "POST /messages/text", "kind": "latency", "seconds": 0.08, "times": 0},
)
"""What happens to the bot's sends: some are carried out and never answered, all take a moment."""


class _Urls(msgspec.Struct):
    openai: str
    whapi: str


class Outside:
    """Both simulators and what they tell. `close` ends them."""

    whapi: httpx2.AsyncClient
    openai: httpx2.AsyncClient

    def __init__(self, place: Place) -> None:
        """Nothing is started yet."""
        self._place = place
        self._process: Process | None = None
        self._urls = _Urls("", "")
        self._clients = contextlib.AsyncExitStack()

    @property
    def settings(self) -> dict[str, str]:
        """What tells a server where they are."""
        return {"OPENAI_BASE_URL": self._urls.openai, "WHAPI_BASE_URL": self._urls.whapi}

    async def start(self) -> None:
        """Start the simulators. Raises `CannotStart`."""
        with self._place.output("simulators.txt") as output:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "app.simulators", "all", "--exit-with-parent"),
                stdin=PIPE,
                stdout=PIPE,
                stderr=output,
                cwd=self._place.directory,
                env=environment({}),
                start_new_session=True,
            )
        told = self._process.stdout
        line = b""
        if told is not None:
            with contextlib.suppress(TimeoutError):
                line = await asyncio.wait_for(told.readline(), START_SECONDS)
        if not line:
            msg = f"the simulators did not start: {self._place.last_words('simulators.txt')}"
            raise CannotStart(msg)
        self._urls = msgspec.json.decode(line, type=_Urls)
        self.whapi = await self._client(self._urls.whapi)
        self.openai = await self._client(self._urls.openai.removesuffix("/v1"))

    async def set_manners(self, nodes: Sequence[str], headers: Mapping[str, str]) -> None:
        """Point the gateway's webhooks to the servers in turn, and say how both sides behave."""
        target = {"url": f"{nodes[0]}/webhooks/whapi", "headers": headers, "nodes": nodes}
        (await self.whapi.post("/_sim/webhook", json={**target, **MANNERS})).raise_for_status()
        (await self.whapi.post("/_sim/faults", json=FAULTS)).raise_for_status()
        (await self.openai.post("/_sim/latency", json=THINKING)).raise_for_status()

    async def lose_a_conversation(self) -> None:
        """Let OpenAI forget the conversation that is asked for next."""
        (await self.openai.post("/_sim/faults", json=[LOST])).raise_for_status()

    async def accounts(self) -> tuple[OpenAIAccount, WhapiAccount]:
        """Return what both sides say happened."""
        openai = await self.openai.get("/_sim/account", timeout=60)
        whapi = await self.whapi.get("/_sim/account", timeout=60)
        return (
            msgspec.json.decode(openai.content, type=OpenAIAccount),
            msgspec.json.decode(whapi.content, type=WhapiAccount),
        )

    async def answered(self) -> int:
        """Return how many messages of the bot the phones show."""
        return (await self.accounts())[1].sent

    async def model_is_busy(self, runs: int, seconds: float) -> int:
        """Wait until so many responses are being made, at most `seconds`; return how many are."""
        query: dict[str, str | float] = {"active": runs, "timeout": seconds}
        answer = await self.openai.get("/_sim/wait", params=query, timeout=seconds + 10)
        return len(answer.json()["active"])

    async def queue_drains(self, seconds: float) -> bool:
        """Wait until the gateway has nothing left to deliver, at most `seconds`."""
        query: dict[str, str | float] = {"wait": 1, "timeout": min(seconds, 60)}
        answer = await self.whapi.get("/_sim/queue", params=query, timeout=seconds + 10)
        return not answer.json()["pending"]

    async def close(self) -> None:
        """End the simulators. Idempotent."""
        await self._clients.aclose()
        if self._process is not None:
            await end(self._process)

    async def _client(self, url: str) -> httpx2.AsyncClient:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
        client = httpx2.AsyncClient(base_url=url, limits=limits, timeout=30)
        return await self._clients.enter_async_context(client)
