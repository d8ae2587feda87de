"""The processes of the demo: the outside, simulated, and the server, started, killed, stopped.

Each child holds the other end of a pipe of ours: when this process is gone, however it died, they
go too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, Self

import httpx2
import msgspec

import app
from app.demo.accounts import OpenAIAccount, WhapiAccount
from app.settings import load

ROOT: Final = Path(app.__file__).parents[1]
HEADER: Final = "x-hilo-secret"
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 40.0
_LOOK_SECONDS: Final = 0.02
_PORTS: Final = range(20_000, 32_000)
"""Below those that the system gives to outgoing connections: the server comes back to its own."""

SETTINGS: Final = {
    "HILO_QUIET_SECONDS": "0.3",
    "HILO_LONGEST_SECONDS": "3",
    "HILO_SEND_SECONDS": "2",
    "HILO_DELIVERY_MARGIN_SECONDS": "0.5",
    "HILO_RUN_SECONDS": "20",
    "HILO_BUSY_SECONDS": "20",
    "HILO_ORPHAN_START_SECONDS": "0.5",
    "HILO_ORPHAN_EVERY_SECONDS": "1",
    "HILO_BEAT_SECONDS": "0.5",
    "HILO_DEAD_SECONDS": "5",
    "OPENAI_API_KEY": "demo",
    "WHAPI_TOKEN": "demo",
}
"""What makes a demo short: the defaults wait for people, who are slower than this."""

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


class CannotStart(Exception):
    """A process could not be started on this machine."""


class ServerDied(Exception):
    """The server ended, and nobody had asked it to."""


class _Urls(msgspec.Struct):
    openai: str
    whapi: str


class _Address(msgspec.Struct):
    pid: int
    url: str


class World:
    """The processes and their addresses. An async context manager: on leaving, all are gone."""

    def __init__(self, directory: Path) -> None:
        """Prepare; nothing is started yet."""
        self.directory = directory
        self.data = directory / "data"
        self.logs = directory / "logs"
        self.settings = load(data=self.data, logs=self.logs, bot="default", database_url="", kek="")
        """Where the bot's log and keys are, whatever this machine's environment says."""
        self.bot = self.settings.bot_directory
        self.files = (self.data, self.logs, directory / "server.txt", directory / "worker.txt")
        self._port = free_port()
        self._secret = secrets.token_urlsafe(18)
        self._urls = _Urls("", "")
        self._simulators: Process | None = None
        self._server: Process | None = None
        self._expected_end = False
        self.restarts = 0
        self.whapi: httpx2.AsyncClient
        self.openai: httpx2.AsyncClient
        self.node: httpx2.AsyncClient
        self._clients = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._clients.aclose()
        for process in (self._server, self._simulators):
            if process is not None:
                await _end(process)

    # -- the outside -----------------------------------------------------------------------------

    async def start_outside(self) -> None:
        """Start the simulators. Raises `CannotStart`."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._output("simulators.txt") as output:
            self._simulators = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "app.simulators", "all", "--exit-with-parent"),
                stdin=PIPE,
                stdout=PIPE,
                stderr=output,
                cwd=self.directory,
                env=_environment({}),
                start_new_session=True,
            )
        told = self._simulators.stdout
        line = b""
        if told is not None:
            with contextlib.suppress(TimeoutError):
                line = await asyncio.wait_for(told.readline(), _START_SECONDS)
        if not line:
            msg = f"the simulators did not start: {self._last_words('simulators.txt')}"
            raise CannotStart(msg)
        self._urls = msgspec.json.decode(line, type=_Urls)
        self.whapi = await self._client(self._urls.whapi)
        self.openai = await self._client(self._urls.openai.removesuffix("/v1"))
        self.node = await self._client(self.server_url)

    async def set_manners(self) -> None:
        """Point the gateway's webhooks to the server, and say how both sides behave."""
        target = {
            "url": f"{self.server_url}/webhooks/whapi",
            "headers": {HEADER: self._secret},
        }
        (await self.whapi.post("/_sim/webhook", json={**target, **MANNERS})).raise_for_status()
        (await self.whapi.post("/_sim/faults", json=FAULTS)).raise_for_status()
        (await self.openai.post("/_sim/latency", json=THINKING)).raise_for_status()

    async def accounts(self) -> tuple[OpenAIAccount, WhapiAccount]:
        """Return what both sides of the outside say happened."""
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

    # -- the server ------------------------------------------------------------------------------

    @property
    def server_url(self) -> str:
        """Where the server listens, before and after its restart."""
        return f"http://127.0.0.1:{self._port}"

    async def start_server(self) -> None:
        """Start the server and wait for its address. Raises `CannotStart`."""
        settings = {
            **SETTINGS,
            "HILO_DATA": str(self.data),
            "HILO_LOGS": str(self.logs),
            "HILO_PORT": str(self._port),
            "HILO_WEBHOOK_SECRET": self._secret,
            "OPENAI_BASE_URL": self._urls.openai,
            "WHAPI_BASE_URL": self._urls.whapi,
        }
        self._expected_end = True  # until it has started, its end is ours to explain
        with self._output("server.txt") as output:
            self._server = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "app.demo.leash", "app.cli", "serve"),
                stdin=PIPE,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env=_environment(settings),
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._announced(self._server)
        except TimeoutError:
            msg = f"the server did not start within {_START_SECONDS:g} s"
            raise CannotStart(msg) from None
        self._expected_end = False

    async def _announced(self, server: Process) -> None:
        """Wait for `serve.json` of this very process; it is written when the port is open."""
        announcement = self.data / "serve.json"
        while True:
            with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
                told = msgspec.json.decode(announcement.read_bytes(), type=_Address)
                if told.pid == server.pid:
                    return
            if server.returncode is not None:
                msg = f"the server did not start: {self._last_words('server.txt')}"
                raise CannotStart(msg)
            await asyncio.sleep(_LOOK_SECONDS)

    async def kill_server(self) -> None:
        """`kill -9`: no time for a last word."""
        self._expected_end = True
        server = self._running()
        server.send_signal(signal.SIGKILL)
        await _gone(server)

    async def restart_server(self) -> None:
        """Start the server again, at the same address, on what the killed one left.

        Raises `ServerDied` if it does not come back: that is no fault of the machine's.
        """
        self.restarts += 1
        try:
            await self.start_server()
        except CannotStart as error:
            msg = f"after kill -9 {error}"
            raise ServerDied(msg) from error

    async def stop_server(self) -> int:
        """SIGTERM, and wait; return the exit code. Kills it if it does not end in time."""
        self._expected_end = True
        server = self._running()
        with contextlib.suppress(ProcessLookupError):
            server.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.wait(), _STOP_SECONDS)
        if server.returncode is None:
            server.kill()
        return await _gone(server)

    async def open_work(self) -> float:
        """Return how many people the server still has something to do for."""
        numbers = await self._numbers()
        return sum(
            numbers[name]
            for name in ("hilo_open_streams", "hilo_appends_waiting", "hilo_turns_running")
        )

    async def _numbers(self) -> dict[str, float]:
        answer = await self.node.get("/metrics")
        answer.raise_for_status()
        lines = (line.split() for line in answer.text.splitlines() if not line.startswith("#"))
        return {name.partition("{")[0]: float(value) for name, value in lines}

    async def watch(self) -> None:
        """Return never; raise `ServerDied` when the server ends by itself."""
        while True:
            server = self._server
            code = None if server is None else await server.wait()
            if server is not None and not self._expected_end and server is self._server:
                words = self._last_words("server.txt")
                msg = f"the server ended by itself with {code}: {words}"
                raise ServerDied(msg)
            await asyncio.sleep(_LOOK_SECONDS)

    def _running(self) -> Process:
        if self._server is None:
            msg = "start_server() comes first"
            raise RuntimeError(msg)
        return self._server

    # -- the read models -------------------------------------------------------------------------

    async def head(self) -> int:
        """Return the last position of the log."""
        answer = await self.node.get("/readyz")
        answer.raise_for_status()
        return int(answer.json()["position"])

    async def rebuild_views(self) -> str:
        """Let the worker make `views.db` from the log alone; return what went wrong, if anything.

        What followed live is put aside, as `views.live.db`.
        """
        for suffix in ("", "-wal", "-shm"):
            followed = self.bot / f"views.db{suffix}"
            if followed.exists():
                followed.rename(self.bot / f"views.live.db{suffix}")
        worker = ("app.worker", "rebuild", "--data", str(self.data), "--bot", self.bot.name)
        with self._output("worker.txt") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "app.demo.leash", *worker),
                stdin=PIPE,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env=_environment({}),
                start_new_session=True,
            )
        try:
            code = await process.wait()
        finally:
            await _end(process)
        return f"the worker: exit code {code}: {self._last_words('worker.txt')}" if code else ""

    # -- small parts -----------------------------------------------------------------------------

    async def _client(self, url: str) -> httpx2.AsyncClient:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
        client = httpx2.AsyncClient(base_url=url, limits=limits, timeout=30)
        return await self._clients.enter_async_context(client)

    @contextlib.contextmanager
    def _output(self, name: str) -> Iterator[IO[bytes]]:
        with (self.directory / name).open("ab") as output:
            yield output

    def _last_words(self, name: str) -> str:
        path = self.directory / name
        lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
        return " / ".join(lines[-3:]) or f"it said nothing; see {path}"


def free_port() -> int:
    """Return a port that nobody listens on. Raises `CannotStart` if there is none."""
    for port in random.sample(_PORTS, 50):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    msg = f"no free port between {_PORTS.start} and {_PORTS.stop}"
    raise CannotStart(msg)


def _environment(settings: dict[str, str]) -> dict[str, str]:
    """Return our environment without anybody's Hilo in it, and with these settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HILO_", "OPENAI_", "WHAPI_", "DATABASE_URL"))
    }
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, **settings}


async def _end(process: Process) -> None:
    """End a process that we started: its pipe first, then by force."""
    if process.stdin is not None:
        process.stdin.close()
    if process.returncode is None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 5)
    if process.returncode is None:
        process.kill()
    await _gone(process)


async def _gone(process: Process) -> int:
    """Wait for the end and close our ends of its pipes."""
    if process.stdin is not None:
        process.stdin.close()
    return await process.wait()
