"""The simulators and `hilo serve`, each a process of its own, as they are in earnest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import httpx2
import msgspec
import psutil

from eventstore.codec import Event
from eventstore.sqlite import SQLiteLog
from eventstore.store import LogStore
from eventstore.subscription import Subscription
from tests.integration.turns.judging import Evidence, Story, faults
from tests.integration.turns.outside import PATIENCE, Outside

ROOT = Path(__file__).parents[3]
SHORT: Mapping[str, str] = {
    "HILO_QUIET_SECONDS": "0.1",
    "HILO_LONGEST_SECONDS": "1",
    "HILO_ORPHAN_START_SECONDS": "0.1",
    "HILO_ORPHAN_EVERY_SECONDS": "0.3",
    "HILO_SEND_SECONDS": "0.6",
    "HILO_DELIVERY_MARGIN_SECONDS": "0.2",
    "HILO_BEAT_SECONDS": "0.3",
    "HILO_DEAD_SECONDS": "2",
    "HILO_RUN_SECONDS": "3",
    "OPENAI_API_KEY": "sk-of-nobody",
    "WHAPI_TOKEN": "of-nobody",
}


@contextlib.asynccontextmanager
async def simulators() -> AsyncIterator[Outside]:
    """Start both simulators in one process; it ends with the context, or with this process."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.simulators", "all", "--exit-with-parent"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            urls = msgspec.json.decode(await child.stdout.readline(), type=dict[str, str])
        outside = Outside(urls["openai"].removesuffix("/v1"), urls["whapi"])
        try:
            yield outside
        finally:
            await outside.close()
    finally:
        child.stdin.close()
        await child.wait()


class Server:
    """`hilo serve` on one data directory and one port, started and killed as often as wanted."""

    def __init__(self, outside: Outside, directory: Path, **settings: str) -> None:
        self.outside = outside
        self.data = directory / "data"
        self.logs = directory / "logs"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.said = b""
        self.program: tuple[str, ...] = ("app.cli", "serve")
        """The module that is run, and its arguments."""
        self.code = ROOT
        """Where the program is: another build's directory, from the next start on."""
        self.newer: tuple[type[Event], ...] = ()
        """Classes of events that a later build writes."""
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None

    def set(self, name: str, value: str) -> None:
        """Change a setting, from the next start on."""
        self._settings[name] = value

    @property
    def environment(self) -> dict[str, str]:
        """The settings of this server, beside the machine's own environment."""
        return {
            **os.environ,
            **SHORT,
            "HILO_DATA": str(self.data),
            "HILO_LOGS": str(self.logs),
            "HILO_PORT": str(self.port),
            "OPENAI_BASE_URL": f"{self.outside.openai_url}/v1",
            "WHAPI_BASE_URL": self.outside.whapi_url,
            **self._settings,
        }

    async def start(self, crash_at: str = "", *, wait: bool = True) -> None:
        """Start it; return when it listens (unless not to `wait`, or it died first)."""
        assert self._process is None, "it runs already"
        self.said = b""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *self.program),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.code,
            env={**self.environment, "HILO_CRASH_AT": crash_at},
        )
        await self.outside.webhook(f"{self.url}/webhooks/whapi", first_delay=0.05, max_delay=0.2)
        if wait:
            await self._listens()

    async def dies(self) -> int:
        """Return how the process ended, once it did."""
        assert self._process is not None
        async with asyncio.timeout(PATIENCE):
            out, _ = await self._process.communicate()
        self.said += out
        code = self._process.returncode
        self._process = None
        assert code is not None
        return code

    async def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        assert await self.dies() == -signal.SIGKILL

    async def stop(self) -> int:
        """Ask it to end (SIGTERM), and return its exit code."""
        assert self._process is not None
        self._process.terminate()
        return await self.dies()

    async def begins_to_stop(self) -> None:
        """Ask it to end, and return as soon as it says that it does."""
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.terminate()
        async with asyncio.timeout(PATIENCE):
            while b"Stopping" not in self.said:
                self.said += await self._process.stdout.readline()

    async def stop_impatiently(self, first: signal.Signals) -> int:
        """Ask it to end, and ask again (SIGTERM) until it has; return its exit code."""
        assert self._process is not None
        asked = first
        async with asyncio.timeout(PATIENCE):
            while self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.send_signal(asked)
                asked = signal.SIGTERM
                await asyncio.to_thread(_pause)
        return await self.dies()

    async def close(self) -> None:
        """Leave nothing behind, whatever happened."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self.dies()

    def story(self) -> Story:
        """Read the log, as any other process may."""
        log = self.log()
        try:
            return Story.of(log, self.newer)
        finally:
            log.close()

    def log(self) -> LogStore:
        """Open the log, to be read and closed again."""
        return SQLiteLog(self.data / "default" / "log.db")

    async def judge(self) -> list[str]:
        """Return what the judge finds."""
        outside = self.outside
        return faults(
            Evidence(
                outside.asked,
                await outside.openai_account(),
                await outside.whapi_account(),
                self.story(),
            )
        )

    async def settled(self, seconds: float = PATIENCE) -> None:
        """Return when every promise is kept and nothing is open; fail if that never comes."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while found := await self.judge():
            assert loop.time() < deadline, "\n".join([*found, *self.technical_log()])
            await asyncio.to_thread(self._wait_for_news)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return as soon as a condition holds; fail if it never does."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.to_thread(self._wait_for_news)

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """Let no file of it grow, and none be made that holds anything, while the context lasts."""
        assert self._process is not None
        server = psutil.Process(self._process.pid)
        limits = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        for process in (server, *server.children()):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            yield
        finally:
            for process in (server, *server.children()):
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[asyncio.StreamReader]:
        """Let the technical log be a pipe, from the next start on, and give its other end.

        So that a test can wait for what a server says to itself. `says` reads it.
        """
        self.logs.mkdir(parents=True)
        os.mkfifo(self.logs / "technical.log")
        both = os.open(self.logs / "technical.log", os.O_RDWR | os.O_NONBLOCK)  # never at its end
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(both, "rb", 0)
        )
        try:
            yield reader
        finally:
            transport.close()

    def technical_log(self, lines: int = 30) -> list[str]:
        """Return the last lines of the technical log."""
        path = self.logs / "technical.log"
        return path.read_text("utf-8").splitlines()[-lines:] if path.exists() else []

    def _wait_for_news(self) -> None:
        """Return when the log has changed, or soon."""
        log = self.log()
        try:
            subscription = Subscription(log, after=log.cursor_at(log.head().position))
            subscription.wait(0.05)
            subscription.wait(0.2)
        finally:
            log.close()

    async def _listens(self) -> None:
        assert self._process is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        async with httpx2.AsyncClient(base_url=self.url, timeout=2) as client:
            while self._process.returncode is None and loop.time() < deadline:
                with contextlib.suppress(httpx2.HTTPError):
                    if (await client.get("/readyz")).status_code == httpx2.codes.OK:
                        return
                await asyncio.to_thread(_pause)


async def says(log: asyncio.StreamReader, category: str) -> None:
    """Return when a server has said something of this category; fail if it never does."""
    async with asyncio.timeout(PATIENCE):
        while category.encode() not in await log.readline():
            pass


def free_port() -> int:
    """Return a port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _pause() -> None:
    signal.sigtimedwait([], 0.02)
