"""`hilo` on PostgreSQL: prepared by the owner, served by nodes that share nothing but the key."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.integration.cli.conftest import Ran
from tests.integration.turns.outside import PATIENCE, Outside
from tests.integration.turns.processes import Server, simulators
from tests.integration.turns.test_several_bots import BOUND_SECONDS, CHANNELS, SECRETS, TwoBots
from tests.postgres import Databases, PostgresServer, with_user

ANA, BEN = "34600111222", "34600111333"
IMPATIENT = {
    "HILO_DATABASE_CONNECT_SECONDS": "1",
    "HILO_DATABASE_STATEMENT_SECONDS": "1",
    "HILO_DATABASE_LOCK_SECONDS": "1",
}


class Databank:
    """Two databases of one server, their owner, and the program's two roles."""

    def __init__(self, postgres: Databases) -> None:
        self.owner, self.keys_owner = postgres.database(), postgres.database()
        name = urlsplit(self.owner).path[1:]
        self.environment = {
            "HILO_DATABASE_URL": postgres.role(self.owner, f"log_{name}"),
            "HILO_KEYS_DATABASE_URL": postgres.role(self.keys_owner, f"keys_{name}"),
            "HILO_OWNER_DATABASE_URL": with_owner(self.owner),
            "HILO_KEK": base64.b64encode(bytes(range(32))).decode(),
        }


def with_owner(url: str) -> str:
    """The URL with its user said."""
    user = urlsplit(url).username
    return url if user else with_user(url, "postgres", "")


@pytest.fixture
def databank(postgres: Databases) -> Databank:
    return Databank(postgres)


@pytest.fixture
async def outside() -> AsyncIterator[Outside]:
    async with simulators() as outside:
        yield outside


def hilo(node: Server, *arguments: str, **variables: str) -> Ran:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        cwd=node.code,
        env=node.environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


async def test_two_nodes_serve_one_bot_and_every_command_looks_at_it(
    databank: Databank, outside: Outside, tmp_path: Path
) -> None:
    one, two = (Server(outside, tmp_path / n, **databank.environment) for n in ("one", "two"))
    try:
        unprepared = hilo(one, "log", "stats")
        assert unprepared.code == 3
        prepared = hilo(one, "store", "prepare", "--json")
        assert prepared.code == 0, prepared.err
        assert [row["store"] for row in prepared.json] == [
            "control log",
            "log of default",
            "keys of default",
        ]
        await one.start()
        await outside.say(ANA)
        await outside.reads(ANA)
        await two.start()
        await outside.say(BEN)
        await outside.reads(BEN)
        for node in (one, two):
            stats = hilo(node, "log", "stats", "--json")
            assert stats.code == 0, stats.err
            assert stats.json["users"] == 2
            assert stats.json["bytes"] > 0
            assert "schema bot_default" in stats.json["log"]
        shown = hilo(one, "users", "show", ANA, "--json")
        assert shown.code == 0, shown.err
        assert len(hilo(one, "log", "tail", "-n", "5", "--json").out.splitlines()) == 5
        assert hilo(one, "turns", "list", "--json").json["turns"] == []
        exported = hilo(one, "log", "export")
        assert len(exported.out.splitlines()) >= stats.json["position"]
        rebuilt = hilo(one, "projections", "rebuild", "--json")
        assert rebuilt.code == 0, rebuilt.err
        assert hilo(one, "threads", "list", "--json").code == 0
        entries = hilo(one, "control", "log", "--json").out
        assert "projections rebuild" in entries
        assert entries.count("BotOpened") == 1, "both nodes opened it alike"
        assert await one.stop() == 0
        assert await two.stop() == 0
    finally:
        await one.close()
        await two.close()


async def test_a_node_with_another_key_is_refused(
    databank: Databank, outside: Outside, tmp_path: Path
) -> None:
    first = Server(outside, tmp_path / "first", **databank.environment)
    other = base64.b64encode(bytes(32)).decode()
    stranger = Server(outside, tmp_path / "s", **(databank.environment | {"HILO_KEK": other}))
    keyless = Server(outside, tmp_path / "k", **(databank.environment | {"HILO_KEK": ""}))
    try:
        assert hilo(first, "store", "prepare").code == 0
        await first.start()
        for node, said in ((stranger, b"did not make this keyring"), (keyless, b"set HILO_KEK")):
            await node.start(wait=False)
            assert await node.dies() == 3
            assert said in node.said
            assert b"Traceback" not in node.said
    finally:
        for node in (first, stranger, keyless):
            await node.close()


async def stands_still(server: PostgresServer, two: TwoBots) -> None:
    """A database that answers nothing keeps its own bot waiting, not for long, and nobody else."""
    with server.frozen():
        stuck = asyncio.ensure_future(two.post("SALES-1", "kayak", 3))
        loop = asyncio.get_running_loop()
        for number in range(100, 160):
            begun = loop.time()
            assert (await two.post("HELP-1", "canoe", number)).status_code == 200
            assert loop.time() - begun < BOUND_SECONDS
        end = await stuck
    assert end.status_code == 503
    assert int(end.headers["retry-after"]) > 0


async def test_a_bot_whose_database_is_killed_does_not_harm_the_other(
    own_postgres: PostgresServer, postgres: Databases, tmp_path: Path
) -> None:
    places = {"sales": own_postgres, "help": postgres}
    bots = "".join(
        f"""
[bots.{bot}]
channel = "{CHANNELS[bot]}"
webhook_secret = "{SECRETS[bot]}"
whapi_token = "of-{bot}"
database_url = "{place.database()}"
keys_database_url = "{place.database()}"
"""
        for bot, place in places.items()
    )
    async with simulators() as outside:
        server = Server(outside, tmp_path, **IMPATIENT)
        server.data.mkdir()
        (server.data / "bots.toml").write_text(bots)
        two = TwoBots(server, {"help": outside})
        try:
            await two.start()
            assert (await two.post("SALES-1", "kayak", 1)).status_code == 200
            await stands_still(own_postgres, two)
            own_postgres.kill()
            refused = await two.post("SALES-1", "kayak", 2)
            assert refused.status_code == 503
            await outside.say(ANA)
            await outside.reads(ANA)
            ready = await two.ready()
            assert (ready["http"], ready["status"]) == (200, "ready")
            assert str(ready["reason"]).startswith("sales: the log ")
            own_postgres.start()
            async with asyncio.timeout(PATIENCE):
                while (await two.post("SALES-1", "kayak", 2)).status_code != 200:
                    await asyncio.to_thread(server.data.exists)
            # The next heartbeat tells that the log is there again, not the webhook.
            async with asyncio.timeout(PATIENCE):
                while (ready := await two.ready())["reason"]:
                    await asyncio.to_thread(server.data.exists)
            assert (ready["http"], ready["status"]) == (200, "ready")
        finally:
            await server.close()
