"""One `hilo serve` of the demo: started, killed, started again, and stopped in good order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from asyncio.subprocess import Process
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx2
import msgspec

from app.demo.processes import (
    START_SECONDS,
    CannotStart,
    Place,
    ServerDied,
    end,
    free_port,
    gone,
)

_STOP_SECONDS: Final = 40.0
_LOOK_SECONDS: Final = 0.02
_OPEN: Final = ("hilo_open_streams", "hilo_appends_waiting", "hilo_turns_running")


class _Address(msgspec.Struct):
    pid: int
    url: str


class Server:
    """A server with a data directory and a port of its own, which it keeps over its restarts."""

    def __init__(self, place: Place, name: str, data: Path, logs: Path, bot: str) -> None:
        """Nothing is started yet."""
        self.name = name
        self.data = data
        self.logs = logs
        self.bot = data / bot
        self.restarts = 0
        self._place = place
        self._port = free_port()
        self._process: Process | None = None
        self._expected_end = False
        self._client = httpx2.AsyncClient(base_url=self.url, timeout=30)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def said(self) -> str:
        """The file that holds what it prints."""
        return f"{self.name}.txt"

    @property
    def running(self) -> bool:
        """Whether it is meant to be there."""
        return self._process is not None and not self._expected_end

    async def start(self, settings: Mapping[str, str]) -> None:
        """Start it and wait for its address. Raises `CannotStart`."""
        self._expected_end = True  # until it has started, its end is ours to explain
        own = {
            "HILO_DATA": str(self.data),
            "HILO_LOGS": str(self.logs),
            "HILO_PORT": str(self._port),
            "HILO_NODE": self.name,
        }
        self._process = await self._place.start(
            "app.cli", "serve", said=self.said, settings={**settings, **own}
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._announced(self._process)
        except TimeoutError:
            msg = f"{self.name} did not start within {START_SECONDS:g} s"
            raise CannotStart(msg) from None
        self._expected_end = False

    async def _announced(self, process: Process) -> None:
        """Wait for `serve.json` of this very process; it is written when the port is open."""
        announcement = self.data / "serve.json"
        while True:
            with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
                told = msgspec.json.decode(announcement.read_bytes(), type=_Address)
                if told.pid == process.pid:
                    return
            if process.returncode is not None:
                msg = f"{self.name} did not start: {self._place.last_words(self.said)}"
                raise CannotStart(msg)
            await asyncio.sleep(_LOOK_SECONDS)

    async def kill(self) -> None:
        """`kill -9`: no time for a last word."""
        self._expected_end = True
        process = self._started()
        process.send_signal(signal.SIGKILL)
        await gone(process)

    async def restart(self, settings: Mapping[str, str]) -> None:
        """Start it again, at the same address, on what the killed one left.

        Raises `ServerDied` if it does not come back: that is no fault of the machine's.
        """
        self.restarts += 1
        try:
            await self.start(settings)
        except CannotStart as error:
            msg = f"after kill -9 {error}"
            raise ServerDied(msg) from error

    async def stop(self) -> int:
        """SIGTERM, and wait; return the exit code. Kills it if it does not end in time."""
        self._expected_end = True
        process = self._started()
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        if process.returncode is None:
            process.kill()
        return await gone(process)

    async def watch(self) -> None:
        """Return never; raise `ServerDied` when it ends by itself."""
        while True:
            process = self._process
            code = None if process is None else await process.wait()
            if process is not None and not self._expected_end and process is self._process:
                words = self._place.last_words(self.said)
                msg = f"{self.name} ended by itself with {code}: {words}"
                raise ServerDied(msg)
            await asyncio.sleep(_LOOK_SECONDS)

    async def open_work(self) -> float:
        """Return how many people it still has something to do for."""
        answer = await self._client.get("/metrics")
        answer.raise_for_status()
        lines = (line.split() for line in answer.text.splitlines() if not line.startswith("#"))
        numbers = {name.partition("{")[0]: float(value) for name, value in lines}
        return sum(numbers[name] for name in _OPEN)

    async def close(self) -> None:
        """End it, however it is. Idempotent."""
        await self._client.aclose()
        if self._process is not None:
            await end(self._process)

    def _started(self) -> Process:
        if self._process is None:
            msg = "start() comes first"
            raise RuntimeError(msg)
        return self._process
