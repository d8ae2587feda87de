"""Two bots in one `hilo serve`, each with its own WhatsApp, and nothing between them."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from app.bots import the_bot
from app.settings import Settings, load
from app.stores import open_keyring, open_log
from eventstore.keyring import Handle
from tests.integration.turns.outside import PATIENCE, Outside
from tests.integration.turns.processes import Server, simulators
from tests.unit.api.bodies import CHANNEL, body, message

BOTS = """
[bots.sales]
channel = "SALES-1"
webhook_secret = "kayak"
openai_base_url = "{sales.openai_url}/v1"
whapi_base_url = "{sales.whapi_url}"
whapi_token = "of-sales"

[bots.help]
channel = "HELP-1"
webhook_secret = "canoe"
openai_base_url = "{help.openai_url}/v1"
whapi_base_url = "{help.whapi_url}"
whapi_token = "of-help"
"""
ANA = "34600111222"
SECRETS = {"sales": "kayak", "help": "canoe"}
CHANNELS = {"sales": "SALES-1", "help": "HELP-1"}


class TwoBots:
    """A server with two bots, and a world for each."""

    def __init__(self, server: Server, worlds: dict[str, Outside]) -> None:
        self.server = server
        self.worlds = worlds

    async def start(self) -> None:
        """Start the server, and let each WhatsApp deliver to its own bot."""
        await self.server.start()
        for bot, world in self.worlds.items():
            await world.webhook(
                f"{self.server.url}/webhooks/whapi",
                first_delay=0.05,
                max_delay=0.2,
                channel=CHANNELS[bot],
                headers={"x-hilo-secret": SECRETS[bot]},
            )

    def settings(self, bot: str) -> Settings:
        """What one bot is set to."""
        return the_bot(load(data=self.server.data, bot=bot))

    async def post(self, channel: str, secret: str, number: int = 0) -> httpx2.Response:
        """Deliver a webhook that no simulator sends."""
        content = body(messages=[message(id=f"m{number}-gA")])
        async with httpx2.AsyncClient(base_url=self.server.url, timeout=PATIENCE) as client:
            return await client.post(
                "/webhooks/whapi",
                content=content.replace(CHANNEL.encode(), channel.encode()),
                headers={"x-hilo-secret": secret},
            )

    async def number(self, name: str, bot: str) -> float:
        """One number of a bot, as `/metrics` shows it."""
        async with httpx2.AsyncClient(base_url=self.server.url, timeout=PATIENCE) as client:
            lines = (await client.get("/metrics")).text.splitlines()
        begin = f'hilo_{name}{{bot="{bot}"}} '
        return next(float(line.removeprefix(begin)) for line in lines if line.startswith(begin))

    async def runs(self, bot: str) -> int:
        """How many runs a bot has begun."""
        return len((await self.worlds[bot].openai_account()).responses)

    async def ready(self) -> dict[str, object]:
        """What `/readyz` says."""
        async with httpx2.AsyncClient(base_url=self.server.url, timeout=PATIENCE) as client:
            answer = await client.get("/readyz")
            return {"http": answer.status_code, **answer.json()}


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[TwoBots]:
    async with AsyncExitStack() as stack:
        worlds = {bot: await stack.enter_async_context(simulators()) for bot in SECRETS}
        server = Server(worlds["sales"], tmp_path)
        server.data.mkdir()
        (server.data / "bots.toml").write_text(BOTS.format(**worlds))
        stack.push_async_callback(server.close)
        yield TwoBots(server, worlds)


def bytes_of(directory: Path) -> dict[str, str]:
    """What is in a stopped bot's files."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.iterdir())
    }


def pseudonym(settings: Settings, phone: str) -> str:
    keyring = open_keyring(settings)
    try:
        found = keyring.find((Handle("phone", phone),))
    finally:
        keyring.close()
    assert found is not None
    return found


async def test_each_bot_answers_its_own_people_and_knows_nothing_of_the_others(
    two: TwoBots,
) -> None:
    await two.start()
    for world in two.worlds.values():
        await world.say(ANA, "the very same words")
    for world in two.worlds.values():
        await world.reads(ANA)
    ready = await two.ready()
    assert (ready["http"], ready["status"]) == (200, "ready")
    assert await two.server.stop() == 0
    names = {bot: pseudonym(two.settings(bot), ANA) for bot in SECRETS}
    assert len(set(names.values())) == 2, "one person, two bots, two names that say nothing"
    for bot, name in names.items():
        log = open_log(two.settings(bot))
        streams = {info.name for info in log.streams("user/")}
        log.close()
        assert streams == {f"user/{name}"}


async def test_secrets_open_their_own_bot_only(two: TwoBots) -> None:
    await two.start()
    assert (await two.post("SALES-1", "kayak")).status_code == 200
    for channel, secret, status in (
        ("HELP-1", "kayak", 401),
        ("SALES-1", "canoe", 401),
        ("STRANGER-1", "kayak", 404),
        ("STRANGER-1", "nothing", 401),
    ):
        answer = await two.post(channel, secret)
        assert answer.status_code == status, (channel, secret)
    log = open_log(two.settings("help"))
    assert log.head().position == 0
    log.close()


async def test_a_bot_whose_log_is_down_does_not_harm_the_other(two: TwoBots) -> None:
    help_log = two.server.data / "help" / "log.db"
    help_log.parent.mkdir()
    help_log.mkdir()  # a directory where its file should be: it cannot be opened
    await two.start()
    refused = await two.post("HELP-1", "canoe")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    await two.worlds["sales"].say(ANA, "hola")
    await two.worlds["sales"].reads(ANA)
    ready = await two.ready()
    assert (ready["http"], ready["status"]) == (200, "ready")
    assert "help: it cannot be opened" in str(ready["reason"])
    help_log.rmdir()
    async with asyncio.timeout(PATIENCE):
        while (await two.post("HELP-1", "canoe")).status_code != 200:
            await asyncio.to_thread(help_log.parent.exists)
    assert (await two.ready())["reason"] == ""


async def test_a_bot_that_is_deleted_takes_nothing_of_the_other_with_it(two: TwoBots) -> None:
    await two.start()
    for world in two.worlds.values():
        await world.say(ANA, "hola")
    for world in two.worlds.values():
        await world.reads(ANA)
    assert await two.server.stop() == 0
    before = bytes_of(two.server.data / "sales")
    for path in (two.server.data / "help").iterdir():
        path.unlink()
    (two.server.data / "help").rmdir()
    assert bytes_of(two.server.data / "sales") == before
    name = pseudonym(two.settings("sales"), ANA)
    log = open_log(two.settings("sales"))
    assert log.stream_version(next(log.streams("user/")).name) > 0
    assert next(log.streams("user/")).name == f"user/{name}"
    log.close()


async def test_two_bots_never_share_a_directory(two: TwoBots) -> None:
    (two.server.data / "sales").mkdir()
    (two.server.data / "help").symlink_to("sales")
    await two.server.start(wait=False)
    assert await two.server.dies() == 3
    assert b"the bot's directory" in two.server.said


BOUND_SECONDS = 2.0
"""What a flooded neighbour may cost a webhook on a shared core of CI; alone it takes a few ms."""


class Flood:
    """Webhooks for one bot from many connections, each of another person, without a pause."""

    def __init__(self, two: TwoBots) -> None:
        self.answers: Counter[int] = Counter()
        self._two = two
        self._people = itertools.count(34_700_000_000)

    async def pour(self) -> None:
        """Write until cancelled."""
        async with httpx2.AsyncClient(base_url=self._two.server.url, timeout=PATIENCE) as client:
            while True:
                phone = str(next(self._people))
                said = message(
                    **{"id": f"f{phone}-gA", "from": phone, "chat_id": f"{phone}@s.whatsapp.net"}
                )
                answer = await client.post(
                    "/webhooks/whapi",
                    content=body(messages=[said]).replace(CHANNEL.encode(), b"SALES-1"),
                    headers={"x-hilo-secret": "kayak"},
                )
                self.answers[answer.status_code] += 1


async def test_a_flooded_bot_neither_fills_its_neighbours_queue_nor_keeps_its_turns(
    two: TwoBots,
) -> None:
    configured = (two.server.data / "bots.toml").read_text()
    (two.server.data / "bots.toml").write_text(
        configured.replace('secret = "kayak"', 'secret = "kayak"\nqueue = 2')
    )
    two.server.set("HILO_RUNS_AT_ONCE", "2")
    await two.start()
    await two.worlds["sales"].pace(800)
    flood = Flood(two)
    pouring = [asyncio.ensure_future(flood.pour()) for _ in range(24)]
    try:
        async with asyncio.timeout(PATIENCE):
            while await two.number("turns_waiting", "sales") < 20:
                await asyncio.to_thread(two.server.data.exists)
        loop, waits = asyncio.get_running_loop(), []
        for number in range(40):
            begun = loop.time()
            assert (await two.post("HELP-1", "canoe", number)).status_code == 200
            waits.append(loop.time() - begun)
        assert max(waits) < BOUND_SECONDS, sorted(waits)[-5:]
        before = await two.runs("sales")
        await two.worlds["help"].say(ANA, "is anybody there?")
        await two.worlds["help"].reads(ANA)
        overtaken = await two.runs("sales") - before
        assert overtaken <= 8, "runs of the flooded bot began before the one that had none"
        assert await two.number("turns_waiting", "sales") >= 20, "the neighbour was not busy"
    finally:
        for task in pouring:
            task.cancel()
        await asyncio.gather(*pouring, return_exceptions=True)
    assert flood.answers[503] > 0, "its queue was never full: nothing was shown"
    assert await two.number("turns_running", "sales") >= 1
