"""Children of the demo: started on a leash, with nobody's settings but the demo's, and ended.

Each child holds the other end of a pipe of ours: when this process is gone, however it died, they
go too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final

import app

START_SECONDS: Final = 60.0
_ROOT: Final = Path(app.__file__).parents[1]
_PORTS: Final = range(20_000, 32_000)
"""Below those that the system gives to outgoing connections: a server comes back to its own."""


class CannotStart(Exception):
    """A process could not be started on this machine."""


class ServerDied(Exception):
    """A server ended, and nobody had asked it to."""


class Place:
    """A directory in which processes run, and where what they say is kept."""

    def __init__(self, directory: Path) -> None:
        """Nothing is made yet."""
        self.directory = directory

    async def start(
        self, module: str, *arguments: str, said: str, settings: Mapping[str, str]
    ) -> Process:
        """Start a module of ours as a program, on a leash; what it says goes to the file `said`."""
        with self.output(said) as output:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "app.demo.leash", module, *arguments),
                stdin=PIPE,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env=environment(settings),
                start_new_session=True,
            )

    async def run(
        self, module: str, *arguments: str, said: str, settings: Mapping[str, str]
    ) -> int:
        """Do as `start`, and wait; return the exit code."""
        process = await self.start(module, *arguments, said=said, settings=settings)
        try:
            return await process.wait()
        finally:
            await end(process)

    @contextlib.contextmanager
    def output(self, name: str) -> Iterator[IO[bytes]]:
        """Open the file that a process writes to."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / name).open("ab") as output:
            yield output

    def last_words(self, name: str) -> str:
        """Return the last lines of such a file."""
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


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return our environment without anybody's Hilo in it, and with these settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HILO_", "OPENAI_", "WHAPI_", "DATABASE_URL"))
    }
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, **settings}


async def end(process: Process) -> None:
    """End a process that we started: its pipe first, then by force."""
    if process.stdin is not None:
        process.stdin.close()
    if process.returncode is None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 5)
    if process.returncode is None:
        process.kill()
    await gone(process)


async def gone(process: Process) -> int:
    """Wait for the end and close our ends of its pipes."""
    if process.stdin is not None:
        process.stdin.close()
    return await process.wait()
