"""`hilo serve`: one node, from its lock to its last answer.

Without keys, simulators of OpenAI and Whapi are started beside it, over real HTTP, and it says so
loudly. `DATA/serve.json` tells other processes where it listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2
import msgspec
import structlog
import uvicorn
import uvloop

from app import logs
from app.api.corked import CorkedProtocol
from app.api.desks import Desk, Desks
from app.api.ingress import WebhookIngress
from app.api.server import Readiness, create_app
from app.bootstrap import RELEASE, Bot, open_bot, open_outside
from app.lock import exclusive, exclusive_directory
from app.settings import Settings
from app.stopping import Server, Stop, say
from app.stores import log_place
from eventstore.errors import EventStoreError, LogUnavailable, StoreLocked

_log = structlog.get_logger(__name__)
LOOK_SECONDS = 2.0
"""How often the server looks whether `serve.json` is still there."""
LONGEST_PAUSE = 60.0
OPENAI_URL = "https://api.openai.com/v1"
WHAPI_URL = "https://gate.whapi.cloud"
_Duty = Callable[[], Awaitable[None]]


class CannotServe(ConnectionError):
    """The server could not start, or not go on. The message says what to do."""


class World(msgspec.Struct, frozen=True):
    """Where OpenAI and Whapi are reached, and which of them are simulated."""

    openai_url: str
    whapi_url: str
    simulated: tuple[str, ...]


class Address(msgspec.Struct, frozen=True):
    """What `DATA/serve.json` holds."""

    pid: int
    url: str
    openai: str
    whapi: str
    simulated: tuple[str, ...]


def run(settings: Settings) -> int:
    """Serve until a signal and return 0. Raises `CannotServe` with what to do about it."""
    logs.configure(settings.logs)
    # Every user in memory is looked at by a full collection: rare ones keep the p99 low, and
    # frozen structs make no cycles to find (docs/performance.md, "What costs what").
    gc.set_threshold(100_000, 50, 1000)
    directory = settings.bot_directory
    try:
        with (
            exclusive_directory(directory, f"the bot's directory {directory}"),
            exclusive(settings.data / "serve.lock", f"the data directory {settings.data}"),
        ):
            uvloop.run(_serve(settings))
    except (StoreLocked, LogUnavailable, OSError, EventStoreError, ValueError) as error:
        raise CannotServe(_said(error)) from error
    return 0


def _said(error: Exception) -> str:
    """Return an error's text; a plain one of the system gets what to do about it."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot use {error.filename}: {error.strerror}. Choose another with --data"
    return str(error)


async def _serve(settings: Settings) -> None:
    starting = asyncio.current_task()
    assert starting is not None  # noqa: S101 - uvloop.run makes it a task
    stop = Stop(starting)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.ask)
    _log.info("SERVE_STARTING", release=RELEASE)
    try:
        await _run(settings, stop)
    except asyncio.CancelledError:
        if not stop.asked:
            raise
        _log.info("SERVE_STOPPED", when="starting")
    say("Stopped.")


def _echoes_to_people(settings: Settings) -> bool:
    real = bool(settings.whapi_token.get_secret_value()) and not settings.whapi_base_url
    return real and settings.openai_simulated and not settings.echo_to_real_people


async def _run(settings: Settings, stop: Stop) -> None:
    if not settings.on_loopback and not settings.webhook_secret.get_secret_value():
        msg = (
            f"webhooks on {settings.host} need a shared secret: set HILO_WEBHOOK_SECRET and add it "
            f"to the channel's webhook settings as the header {settings.webhook_header}"
        )
        raise ValueError(msg)
    if _echoes_to_people(settings):
        msg = (
            "WhatsApp would be real and OpenAI simulated: people would get echoes of what they "
            "write. Set OPENAI_API_KEY, or HILO_ECHO_TO_REAL_PEOPLE=true if that is what you want"
        )
        raise ValueError(msg)
    with simulators(settings) as world:
        outside = open_outside(settings, openai_url=world.openai_url, whapi_url=world.whapi_url)
        async with open_bot(settings, outside) as bot:
            await _listen(settings, bot, world, stop)


async def _listen(settings: Settings, bot: Bot, world: World, stop: Stop) -> None:
    listener = _bind(settings)
    config = uvicorn.Config(
        door(settings, bot),
        loop="none",
        http=CorkedProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        proxy_headers=False,  # nobody here asks who is behind a proxy
        server_header=False,
        log_config=None,
        timeout_graceful_shutdown=15,
    )
    server = Server(config)
    stop.from_now_on(server, running=lambda: bot.dispatcher.running, hurry=bot.hurry)
    port: int = listener.getsockname()[1]
    announcing = asyncio.ensure_future(_announce(settings, server, world, port))
    try:
        await server.serve(sockets=[listener])
    finally:
        announcing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await announcing
        with contextlib.suppress(OSError):
            (settings.data / "serve.json").unlink()


def _bind(settings: Settings) -> socket.socket:
    """Return a listening socket. Raises `OSError` that names the address."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        msg = (
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}. "
            "Choose another with --host and --port"
        )
        raise OSError(msg) from error
    listener.listen(2048)
    listener.settimeout(0)
    return listener


def door(settings: Settings, bot: Bot) -> WebhookIngress:
    """Return the ASGI application of one node: webhooks in front, everything else behind."""

    def ready() -> Readiness:
        position, waiting = bot.position, bot.writer.waiting
        if bot.writer.last_failure is not None:
            reason = "the log cannot be written"
            return Readiness(status="not ready", position=position, waiting=waiting, reason=reason)
        return Readiness(status="ready", position=position, waiting=waiting)

    secret = settings.webhook_secret.get_secret_value()
    desk = Desk(bot.receiver, settings.bot, settings.channel, (secret,) if secret else ())
    return WebhookIngress(
        create_app(release=RELEASE, ready=ready, numbers=bot.numbers),
        Desks([desk], header=settings.webhook_header, loopback=settings.on_loopback),
        max_body=settings.max_body,
        count=bot.count_webhook,
    )


async def _announce(settings: Settings, server: uvicorn.Server, world: World, port: int) -> None:
    """Say where the server listens, until cancelled: `serve.json` is written again if it is gone.

    What fails is logged and tried again, with a growing pause: the server serves meanwhile.
    """
    while not server.started:  # noqa: ASYNC110 - uvicorn has a flag, and no event to wait for
        await asyncio.sleep(0.01)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{port}"
    address = Address(os.getpid(), url, world.openai_url, world.whapi_url, world.simulated)
    known = partial(_make_known, settings.data / "serve.json", msgspec.json.encode(address))
    duties: list[_Duty] = [known]
    if "whapi" in world.simulated:
        target = f"{url}/webhooks/whapi"
        duties.append(partial(_point_webhooks, settings, world.whapi_url, target))
    failed = await _failed(duties)
    _greet(settings, address)
    pause = LOOK_SECONDS
    while True:
        pause = min(2 * pause, LONGEST_PAUSE) if failed else LOOK_SECONDS
        await asyncio.sleep(pause)
        failed = await _failed(failed or [known])


async def _failed(duties: Sequence[_Duty]) -> list[_Duty]:
    """Do all of them; log what fails, and return it."""
    failed = []
    for duty in duties:
        try:
            await duty()
        except (OSError, httpx2.HTTPError) as error:
            reason = f"{type(error).__name__}: {error}"
            _log.warning("SERVE_ANNOUNCE_ERROR", error=reason)
            failed.append(duty)
    return failed


async def _make_known(path: Path, content: bytes) -> None:
    """Write the file unless it says so already. So small that the event loop does not notice."""
    if not _holds(path, content):
        write_atomically(path, content)
        _log.info("SERVE_ANNOUNCED", file=path.name)


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False


async def _point_webhooks(settings: Settings, whapi_url: str, target: str) -> None:
    secret = settings.webhook_secret.get_secret_value()
    headers = {settings.webhook_header: secret} if secret else {}
    async with httpx2.AsyncClient(base_url=whapi_url, timeout=10) as client:
        answer = await client.post("/_sim/webhook", json={"url": target, "headers": headers})
        answer.raise_for_status()


def _greet(settings: Settings, address: Address) -> None:
    lines = [
        f"Hilo {RELEASE} serves bot {settings.bot!r} at {address.url}",
        f"  webhooks  POST {address.url}/webhooks/whapi",
        f"  health    {address.url}/healthz  {address.url}/readyz  {address.url}/metrics",
        f"  log       {log_place(settings)}   technical log {settings.logs}",
    ]
    lines += _what_is_simulated(settings, address.simulated)
    try:
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
    except OSError as error:  # nobody reads it, or its disk is full
        _log.warning("SERVE_ANNOUNCE_ERROR", error=f"{type(error).__name__}: {error}")


def _what_is_simulated(settings: Settings, simulated: tuple[str, ...]) -> list[str]:
    """Say loudly, for each side, whether it is the real one."""
    if not simulated:
        return []
    openai = (
        "OpenAI is SIMULATED: answers are echoes. Set OPENAI_API_KEY for real ones."
        if "openai" in simulated
        else "OpenAI is REAL: answers cost money."
    )
    whapi = (
        "WhatsApp is SIMULATED: no message reaches anybody. Set WHAPI_TOKEN for the real one."
        if "whapi" in simulated
        else "WhatsApp is REAL: messages reach people."
    )
    lines = ["", f"  !! {openai}", f"  !! {whapi}"]
    if "whapi" in simulated:
        quiet = f"{settings.quiet_seconds:g} s"
        place = "" if settings.data == Path("data") else f" --data {settings.data}"
        lines.append(f"  Try it: hilo chat{place}   (an answer comes after {quiet} of quiet)")
    return lines


def write_atomically(path: Path, content: bytes) -> None:
    """Write a small file so that a reader sees the old one or the new one."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


@contextmanager
def simulators(settings: Settings) -> Iterator[World]:
    """Start the simulators that stand in, as child processes that die with this one."""
    names = tuple(
        name
        for name, wanted in (
            ("openai", settings.openai_simulated),
            ("whapi", settings.whapi_simulated),
        )
        if wanted
    )
    openai_url = settings.openai_base_url or OPENAI_URL
    whapi_url = settings.whapi_base_url or WHAPI_URL
    if not names:
        yield World(openai_url, whapi_url, ())
        return
    what = "all" if len(names) > 1 else names[0]
    settings.data.mkdir(parents=True, exist_ok=True)
    state = settings.data / "simulated.state"
    child = subprocess.Popen(
        [
            *(sys.executable, "-m", "app.simulators", what),
            *("--exit-with-parent", "--state", str(state)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us; the child ends when our end of its stdin does
    )
    try:
        line = child.stdout.readline() if child.stdout else b""
        if not line:
            msg = "the simulators did not start: see logs/technical.log"
            raise LogUnavailable(msg)
        urls = json.loads(line)
        yield World(urls.get("openai", openai_url), urls.get("whapi", whapi_url), names)
    finally:
        if child.stdin:
            child.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=5)
        if child.poll() is None:
            child.kill()
