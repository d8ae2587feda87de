"""`hilo serve` as a process: one to a directory, and it ends in good order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import httpx2
import psutil
import pytest

from app.aggregates import events as e
from app.conversation.todo_checkpoint import TodoCheckpoint
from tests.integration.turns.outside import Outside
from tests.integration.turns.processes import Server, says, simulators

ANA, BEA = "15550108001", "15550108002"


@pytest.fixture
async def outside() -> AsyncIterator[Outside]:
    async with simulators() as outside:
        yield outside


@pytest.fixture
async def server(outside: Outside, tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(outside, tmp_path)
    yield server
    await server.close()


async def answered_once(server: Server, outside: Outside) -> None:
    """Start the server, and let somebody have an answer."""
    await server.start()
    await outside.say(ANA)
    await outside.reads(ANA)
    await server.settled()


async def test_a_second_server_on_one_directory_is_refused_and_says_why(
    server: Server, outside: Outside, tmp_path: Path
) -> None:
    await server.start()
    second = Server(outside, tmp_path)
    await second.start(wait=False)
    assert await second.dies() == 3
    assert b"is in use by process" in second.said
    assert b"Traceback" not in second.said
    await outside.webhook(f"{server.url}/webhooks/whapi")
    await outside.say(ANA)
    await outside.reads(ANA)
    await server.settled()
    assert await server.stop() == 0


async def test_a_second_server_that_is_refused_does_not_rotate_the_log_of_the_first(
    server: Server, outside: Outside, tmp_path: Path
) -> None:
    await server.start()
    log = server.logs / "technical.log"
    os.utime(log, (0, 0))  # as if the last line were of an earlier day
    second = Server(outside, tmp_path)
    await second.start(wait=False)
    assert await second.dies() == 3
    assert [path.name for path in server.logs.iterdir()] == [log.name]
    assert any("SERVE_REFUSED" in line for line in server.technical_log(100))
    assert await server.stop() == 0


async def test_a_second_server_is_refused_whatever_name_leads_to_the_log(
    server: Server, outside: Outside, tmp_path: Path
) -> None:
    await server.start()
    (server.data / "serve.lock").unlink()
    again = Server(outside, tmp_path)
    linked = Server(outside, tmp_path / "elsewhere")
    linked.data.mkdir(parents=True)
    (linked.data / "default").symlink_to(server.data / "default")
    for second in (again, linked):
        await second.start(wait=False)
        assert await second.dies() == 3
        assert b"is in use by process" in second.said
    assert await server.stop() == 0


async def test_a_server_whose_port_is_taken_says_so_before_it_does_anything(
    server: Server, outside: Outside, tmp_path: Path
) -> None:
    await server.start()
    second = Server(outside, tmp_path / "elsewhere")
    second.port = server.port
    await second.start(wait=False)
    assert await second.dies() == 3
    assert f"cannot listen on 127.0.0.1 port {server.port}".encode() in second.said
    assert not second.data.exists()
    assert any("SERVE_REFUSED" in line for line in second.technical_log(100))
    assert await server.stop() == 0


@pytest.mark.parametrize(
    ("name", "value", "said", "code"),
    [
        ("HILO_HOST", "0.0.0.0", b"need a shared secret", 2),
        ("HILO_KEK", "no key", b"HILO_KEK: the key-encryption key is not base64", 2),
        ("HILO_DATABASE_URL", "postgresql://hilo@127.0.0.1:9/log", b"cannot open the log", 3),
    ],
)
async def test_a_server_that_is_refused_leaves_nothing_behind(
    server: Server, name: str, value: str, said: bytes, code: int
) -> None:
    for real in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "WHAPI_TOKEN", "WHAPI_BASE_URL"):
        server.set(real, "")
    server.set("HILO_KEYS_DATABASE_URL", "postgresql://hilo@127.0.0.1:9/keys")
    server.set(name, value)
    await server.start(wait=False)
    assert await server.dies() == code
    assert said in server.said
    assert not server.data.exists()
    server.data.mkdir()
    await server.start(wait=False)
    assert await server.dies() == code
    assert list(server.data.iterdir()) == []


async def test_a_damaged_kek_is_refused_before_a_log_is_made(server: Server) -> None:
    server.data.mkdir()
    kek = server.data / "kek"
    kek.write_bytes(b"kaputt")
    kek.chmod(0o600)
    await server.start(wait=False)
    assert await server.dies() == 3
    assert b"does not hold a key" in server.said
    assert list(server.data.iterdir()) == [kek]


async def test_a_signal_during_start_up_ends_it_in_good_order(server: Server) -> None:
    async with server.listening() as log:
        await server.start(wait=False)
        await says(log, "SERVE_STARTING")
        assert await server.stop() == 0
    assert b"Stopping before it listens." in server.said
    assert b"Traceback" not in server.said
    assert not (server.data / "serve.json").exists()


async def test_a_log_without_its_keys_is_not_served_nor_keys_without_their_log(
    server: Server, outside: Outside
) -> None:
    await answered_once(server, outside)
    assert await server.stop() == 0
    keys = server.data / "default" / "keys.db"
    kept = keys.rename(keys.with_name("keys.kept"))
    await server.start(wait=False)
    assert await server.dies() == 3
    assert b"keys.db is missing" in server.said
    assert not keys.exists()
    kept.rename(keys)
    kek = server.data / "kek"
    kept = kek.rename(server.data / "kek.kept")
    await server.start(wait=False)
    assert await server.dies() == 3
    assert b"kek is missing" in server.said
    assert not kek.exists()
    kept.rename(kek)
    log = server.data / "default" / "log.db"
    kept = log.rename(log.with_name("log.kept"))
    await server.start(wait=False)
    assert await server.dies() == 3
    assert b"log.db is missing" in server.said
    assert not log.exists()
    kept.rename(log)
    await server.start()
    assert await server.stop() == 0


async def test_damaged_derived_files_do_not_stop_a_server(server: Server, outside: Outside) -> None:
    bot = server.data / "default"
    bot.mkdir(parents=True)
    for name in ("todo.db", "views.db"):
        (bot / name).write_bytes(b"x" * 8192)
    await answered_once(server, outside)
    assert await server.stop() == 0
    assert len([*bot.glob("*.damaged-*")]) == 2
    assert sum("DERIVED_FILE_DAMAGED" in line for line in server.technical_log()) == 2


async def test_a_server_on_every_address_says_so_instead_of_one_that_is_nobodys(
    server: Server,
) -> None:
    server.set("HILO_HOST", "0.0.0.0")
    server.set("HILO_WEBHOOK_SECRET", "kayak")
    await server.start()
    assert await server.stop() == 0
    hook = f"POST http://<any address of this machine>:{server.port}/webhooks/whapi"
    assert hook in server.said.decode()
    assert f"0.0.0.0:{server.port}/healthz" not in server.said.decode()


async def test_an_address_that_cannot_be_written_is_written_later(server: Server) -> None:
    obstacle = server.data / "serve.tmp"
    obstacle.mkdir(parents=True)
    async with server.listening() as log:
        await server.start()
        await says(log, "SERVE_ANNOUNCE_ERROR")
        obstacle.rmdir()
        await says(log, "SERVE_ANNOUNCED")
        (server.data / "serve.json").unlink()
        await says(log, "SERVE_ANNOUNCED")
        assert (server.data / "serve.json").exists()
        assert await server.stop() == 0
    assert b"serves bot" in server.said


async def test_on_a_full_disk_the_log_can_still_be_read_over_http(
    server: Server, outside: Outside
) -> None:
    await answered_once(server, outside)
    async with httpx2.AsyncClient(base_url=server.url, timeout=10) as client:
        async with asyncio.timeout(20):
            while (await client.get("/v1/users")).status_code != httpx2.codes.OK:
                pass  # the read models are being built
        with server.full_disk():
            for path in ("bots", "users", "events", "tokens", "threads", "projections"):
                answer = await client.get(f"/v1/{path}")
                assert answer.status_code == httpx2.codes.OK, (path, answer.text)
            assert (await client.get("/v1/events")).json()["events"]
    assert await server.stop() == 0
    assert not [*server.data.glob("control.db-*")]


@pytest.mark.parametrize("kind", ["process", "thread"])
async def test_on_a_full_disk_nothing_is_acknowledged_and_all_goes_on_when_there_is_room(
    server: Server, outside: Outside, kind: str
) -> None:
    server.set("HILO_LOG_WRITER", kind)
    server.set("HILO_READ_MODELS", kind)
    await answered_once(server, outside)
    phones = [f"1555010801{n}" for n in range(2, 9)]
    async with httpx2.AsyncClient(base_url=server.url, timeout=10) as client:
        with server.full_disk():
            before = server.story()
            while (await client.get("/readyz")).status_code == httpx2.codes.OK:
                pass  # the heartbeat finds it out
            for phone in phones:  # new to it: their keys are not durable either
                await outside.say(phone)
            hook = await client.post("/webhooks/whapi", content=said_by(phones[0]))
            assert hook.status_code == httpx2.codes.SERVICE_UNAVAILABLE
            assert int(hook.headers["retry-after"]) > 0
            assert server.story().count(e.MessageReceived) == before.count(e.MessageReceived)
        await outside.delivered()
        for phone in phones:
            await outside.reads(phone)
        await server.settled()
        await server.until(partial(todo_is_saved, server))
        async with asyncio.timeout(20):
            while True:  # the read models are at the end of the log
                models = (await client.get("/v1/projections")).json()["projections"]
                if models and all(model["lag"] == 0 for model in models):
                    break
    assert await server.stop() == 0
    assert not [*server.data.glob("*/*.damaged-*")]


def said_by(phone: str) -> bytes:
    """A webhook that nobody delivers again."""
    message = {"id": "hand-1", "type": "text", "from": phone, "from_me": False}
    message |= {"chat_id": f"{phone}@s.whatsapp.net", "timestamp": 1795000000}
    event = {"type": "messages", "event": "post"}
    hook = {
        "channel_id": "DEMO",
        "event": event,
        "messages": [message | {"text": {"body": "hola"}}],
    }
    return json.dumps(hook).encode()


def todo_is_saved(server: Server) -> bool:
    """Whether the to-do list has been saved since the last event."""
    log = server.log()
    todo = TodoCheckpoint(server.data / "default" / "todo.db")
    try:
        cursor = todo.load().cursor
        return cursor is not None and cursor.position == log.head().position
    finally:
        todo.close()
        log.close()


async def test_a_server_that_is_asked_to_stop_finishes_what_runs(
    server: Server, outside: Outside
) -> None:
    await outside.pace(600)
    await server.start()
    await outside.say(ANA)
    await outside.openai_waits("active=1")
    assert await server.stop() == 0
    story = server.story()
    assert story.count(e.RunStarted) == story.count(e.RunCompleted) == story.count(e.MessageSent)
    assert len(await outside.reads(ANA)) == 1
    assert server.said.count(b"Traceback") == 0
    assert b"1 turn is at work and may end first" in server.said
    assert server.said.endswith(b"Stopped.\n")
    await server.start()
    await server.settled()
    assert not any("error" in line.split()[1:2] for line in server.technical_log())
    assert await server.stop() == 0


async def test_a_server_that_is_asked_to_stop_says_who_waits_for_an_answer(
    server: Server, outside: Outside
) -> None:
    server.set("HILO_QUIET_SECONDS", "60")
    server.set("HILO_LONGEST_SECONDS", "60")
    await server.start()
    for phone in (ANA, BEA):
        await outside.say(phone)
    await outside.delivered()
    assert await server.stop() == 0
    assert b"No turn is at work. 2 wait and go on at the next start.\n" in server.said
    server.set("HILO_QUIET_SECONDS", "0.1")
    await server.start()
    for phone in (ANA, BEA):
        assert len(await outside.reads(phone)) == 1
    await server.settled()
    assert await server.stop() == 0
    assert b"No turn is at work.\n" in server.said


async def test_a_second_signal_cancels_what_runs_and_the_next_start_goes_on_with_it(
    server: Server, outside: Outside
) -> None:
    await outside.pace(4_000)
    server.set("HILO_RUN_SECONDS", "10")
    await server.start()
    await outside.say(ANA)
    await outside.openai_waits("active=1")
    await server.begins_to_stop()
    assert await server.stop() == 0
    assert b"Stopping now: turns at work are cancelled" in server.said
    assert server.story().count(e.RunCompleted) == 0
    await outside.pace(0)
    await server.start()
    assert len(await outside.reads(ANA)) == 1
    await server.settled()
    assert await server.stop() == 0


async def test_simulators_that_are_killed_are_noticed_and_started_again_where_they_were(
    server: Server,
) -> None:
    for real in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "WHAPI_TOKEN", "WHAPI_BASE_URL"):
        server.set(real, "")
    async with server.listening() as log:
        await server.start()
        await says(log, "SERVE_ANNOUNCED")
        world = json.loads((server.data / "serve.json").read_text())
        own = Outside(world["openai"].removesuffix("/v1"), world["whapi"])
        try:
            await own.say(ANA)
            await own.reads(ANA)
            for _ in range(2):
                simulators_of(server).kill()
                await says(log, "SIMULATORS_BACK")
                await own.say(ANA)
                assert len(await own.reads(ANA)) == 1
        finally:
            await own.close()
        child = simulators_of(server)
        assert await server.stop() == 0
    assert b"The simulators of the bot 'default' ended (-9)" in server.said
    assert not child.is_running()


def simulators_of(server: Server) -> psutil.Process:
    """The process in which the server's own simulators run."""
    assert server._process is not None
    children = psutil.Process(server._process.pid).children()
    (found,) = (child for child in children if "app.simulators" in child.cmdline())
    return found


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
async def test_however_often_it_is_asked_a_server_ends_in_good_order(
    server: Server, outside: Outside, first: signal.Signals
) -> None:
    await outside.pace(4_000)
    server.set("HILO_RUN_SECONDS", "10")
    await server.start()
    await outside.say(ANA)
    await outside.openai_waits("active=1")
    assert server._process is not None
    children = psutil.Process(server._process.pid).children(recursive=True)
    assert await server.stop_impatiently(first) == 0
    assert server.said.count(b"Stopping now: turns at work are cancelled") == 1
    assert server.said.endswith(b"Stopped.\n")
    assert not any(child.is_running() for child in children)
    assert not [*server.data.glob("default/log.db-*")]
    await outside.pace(0)
    await server.start()
    assert len(await outside.reads(ANA)) == 1
    await server.settled()
    assert await server.stop() == 0
