"""The demo's world: the outside, simulated, one server or several, and what they keep the log in.

With one server the log is a file of its own; several share a PostgreSQL. Each has its own data
directory and its own read models.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from pathlib import Path
from typing import Final, Self

from app.demo.database import Database, configured
from app.demo.outside import Outside
from app.demo.processes import Place
from app.demo.server import Server
from app.settings import Settings, load
from app.stores import open_log

HEADER: Final = "x-hilo-secret"

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

AMONG_SEVERAL: Final = {"HILO_DEAD_SECONDS": "3"}
"""Of several servers one is missed soon."""


class World:
    """The processes and where they are. An async context manager: on leaving, all are gone."""

    def __init__(self, directory: Path, *, nodes: int = 1, postgres: bool = False) -> None:
        """Prepare; nothing is started yet. Raises `SettingsError`."""
        self.directory = directory
        self.data = directory / "data"
        self.place = Place(directory)
        self.outside = Outside(self.place)
        self.database = Database(self.place, configured()) if postgres else None
        self.kept: Path | None = None
        """Where the pages of a private PostgreSQL go on leaving; None: nowhere."""
        bot = "default" if self.database is None else self.database.bot
        several = self.database is not None
        names = [f"node-{n}" for n in range(1, nodes + 1)] if several else ["server"]
        self.servers = tuple(
            Server(
                self.place,
                name,
                self.data / name if several else self.data,
                directory / "logs" / name if several else directory / "logs",
                bot,
            )
            for name in names
        )
        self._secret = secrets.token_urlsafe(18)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        async with contextlib.AsyncExitStack() as closing:
            if self.database is not None:
                closing.push_async_callback(self.database.close, self.kept)
            closing.push_async_callback(self.outside.close)
            closing.push_async_callback(self._close_servers)

    async def _close_servers(self) -> None:
        await asyncio.gather(*(server.close() for server in self.servers))

    async def start(self) -> None:
        """Start everything, and let the gateway deliver to the servers. Raises `CannotStart`."""
        if self.database is not None:
            await self.database.start()
        await self.outside.start()
        # The first one makes what all of them share: the keyring, the bot's first keys.
        first, *others = self.servers
        await first.start(self.server_settings)
        await asyncio.gather(*(server.start(self.server_settings) for server in others))
        urls = [server.url for server in self.servers]
        await self.outside.set_manners(urls, {HEADER: self._secret})

    @property
    def server_settings(self) -> dict[str, str]:
        """The settings that all servers have in common."""
        shared = {} if self.database is None else self.database.environment | AMONG_SEVERAL
        secret = {"HILO_WEBHOOK_SECRET": self._secret}
        return {**SETTINGS, **self.outside.settings, **secret, **shared}

    @property
    def settings(self) -> Settings:
        """Where the bot's log and keys are, whatever this machine's environment says."""
        where = {"data": self.data, "logs": self.directory / "logs"}
        if self.database is not None:
            return load(**where, **self.database.values)
        return load(**where, bot="default", database_url="", keys_database_url="", kek="")

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that were made here and that must not show what people wrote."""
        pages = () if self.database is None else self.database.files
        said = (self.directory / server.said for server in self.servers)
        return (self.data, self.directory / "logs", *said, self.directory / "worker.txt", *pages)

    @property
    def restarts(self) -> int:
        """How often servers were started again."""
        return sum(server.restarts for server in self.servers)

    async def watch(self) -> None:
        """Return never; raise `ServerDied` when a server ends by itself."""
        watching = [asyncio.ensure_future(server.watch()) for server in self.servers]
        try:
            await asyncio.gather(*watching)
        finally:
            for task in watching:
                task.cancel()

    async def open_work(self) -> float:
        """Return how many people the servers still have something to do for."""
        return sum([await server.open_work() for server in self.servers])

    def head(self) -> int:
        """Return the last position of the log."""
        log = open_log(self.settings)
        try:
            return log.head().position
        finally:
            log.close()

    async def stop_servers(self) -> list[str]:
        """SIGTERM to every server; return what did not go well."""
        codes = await asyncio.gather(*(server.stop() for server in self.servers))
        return [
            f"SIGTERM ended {server.name} with exit code {code}"
            for server, code in zip(self.servers, codes, strict=True)
            if code
        ]

    async def catch_up(self) -> list[str]:
        """Bring the read models of every server to the end of the log; return what went wrong.

        What another server wrote while it stopped, this one did not live to hear.
        """
        told = await asyncio.gather(*(self._worker("catch-up", server) for server in self.servers))
        return [fault for fault in told if fault]

    async def rebuild_views(self) -> list[str]:
        """Let the worker make the first server's read models from the log alone.

        What followed live is put aside, as `views.live.db`. Returns what went wrong.
        """
        server = self.servers[0]
        for suffix in ("", "-wal", "-shm"):
            followed = server.bot / f"views.db{suffix}"
            if followed.exists():
                followed.rename(server.bot / f"views.live.db{suffix}")
        fault = await self._worker("rebuild", server)
        return [fault] if fault else []

    async def _worker(self, work: str, server: Server) -> str:
        code = await self.place.run(
            *("app.worker", work, "--data", str(server.data), "--bot", server.bot.name),
            said="worker.txt",
            settings=self.server_settings,
        )
        words = self.place.last_words("worker.txt")
        return f"the worker ({work}): exit code {code}: {words}" if code else ""
