"""Servers in processes of their own: `hilo serve`, and what it is compared with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from app.conversation.todo_checkpoint import TodoCheckpoint
from app.projections import MODELS, Views, models
from bench.datasets import DataSet
from bench.measuring import PeerMissing
from eventstore.sqlite import SQLiteLog

ROOT: Final = Path(__file__).parents[1]
NODE_PACKAGES: Final = ("fastify@5", "better-sqlite3@12")
_NOWHERE: Final = "http://127.0.0.1:9"
_PATIENCE: Final = 60.0
_NPM_PATIENCE: Final = 600.0
_CATCH_UP_PATIENCE: Final = 300.0


class ServerFailed(Exception):
    """A server of ours did not start."""


@contextmanager
def hilo_serve(data: DataSet, settings: Mapping[str, str]) -> Iterator[str]:
    """Run `hilo serve` on a data set that may be written to; yield its URL.

    `settings` are environment variables. Without others it reaches neither OpenAI nor Whapi, and
    neither a turn nor an activity of the data set's people falls due, so that nothing but the
    webhook is measured.
    """
    address = data.data / "serve.json"
    errors = data.data / "serve.err"
    environment = {
        **inherited(),
        "OPENAI_BASE_URL": _NOWHERE,
        "WHAPI_BASE_URL": _NOWHERE,
        "HILO_LOGS": str(data.data / "logs"),
        "HILO_QUIET_SECONDS": "86400",
        "HILO_LONGEST_SECONDS": "86400",
        "HILO_MOST_MESSAGES": "1000000",
        "HILO_ACTIVITY_SECONDS": "86400",
        **settings,
    }
    command = [sys.executable, "-m", "app.cli", "serve", "--data", str(data.data), "--port", "0"]
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            command, cwd=data.data, env=environment, stdout=subprocess.DEVNULL, stderr=stderr
        )
    try:
        yield _url_of(process, address, errors)
    finally:
        process.terminate()
        process.wait(timeout=_PATIENCE)


def _url_of(process: subprocess.Popen[bytes], address: Path, errors: Path) -> str:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        if address.exists():
            return str(msgspec.json.decode(address.read_bytes())["url"])
        time.sleep(0.02)
    msg = f"hilo serve did not start: {errors.read_text('utf-8', 'replace')[-2000:]}"
    raise ServerFailed(msg)


def wait_until_caught_up(data: DataSet, look: Callable[[], None] = lambda: None) -> None:
    """Return when a server has read the whole of a log that it met for the first time.

    Its to-do list looks at every user once and a child builds the read models: work of the first
    start, that must not be measured as if it were traffic's. `look` is called meanwhile, several
    times a second. Raises `ServerFailed`.
    """
    deadline = time.monotonic() + _CATCH_UP_PATIENCE
    log = SQLiteLog(data.directory / "log.db")
    views = Views(data.directory / "views.db")
    todo = TodoCheckpoint(data.directory / "todo.db")
    with closing(log), closing(views), closing(todo):
        while time.monotonic() < deadline:
            head = log.head().position
            cursor = todo.load().cursor
            behind = [model.name for model in models(views, log, MODELS) if model.lag]
            if not behind and head == (0 if cursor is None else cursor.position):
                return
            look()
            time.sleep(0.2)
    msg = f"the server had not read the log within {_CATCH_UP_PATIENCE:.0f} s"
    raise ServerFailed(msg)


@contextmanager
def noop(which: str) -> Iterator[str]:
    """Run `bench.peers.http_noop`; yield its URL."""
    with _printing_its_port([sys.executable, "-m", "bench.peers.http_noop", which], ROOT) as url:
        yield url


@contextmanager
def fastify(database: Path) -> Iterator[str]:
    """Run the Fastify server with a database; yield its URL. Raises `PeerMissing`."""
    here = node_packages()
    shutil.copy(Path(__file__).with_name("peers") / "fastify.mjs", here)
    command = [node(), str(here / "fastify.mjs"), str(database)]
    with _printing_its_port(command, here) as url:
        yield url


def node() -> str:
    """The path of Node.js. Raises `PeerMissing`."""
    found = shutil.which("node")
    if found is None:
        msg = "there is no Node.js on this machine"
        raise PeerMissing(msg)
    return found


def node_packages() -> Path:
    """A directory with the packages of the Node peer, installed when first asked for.

    It stays in the temporary directory of the machine for the next run. Raises `PeerMissing`.
    """
    node()
    here = Path(tempfile.gettempdir()) / f"hilo-bench-node-{os.getuid()}"
    ready = here / "ready"
    if ready.exists():
        return here
    npm = shutil.which("npm")
    if npm is None:
        msg = "there is no npm on this machine to install fastify and better-sqlite3 with"
        raise PeerMissing(msg)
    here.mkdir(mode=0o700, exist_ok=True)
    (here / "package.json").write_text('{"private": true}')
    command = [npm, "install", "--no-audit", "--no-fund", *NODE_PACKAGES]
    probe = [node(), "-e", "require('fastify'); new (require('better-sqlite3'))(':memory:')"]
    for step in (command, probe):
        try:
            done = subprocess.run(
                step, cwd=here, capture_output=True, timeout=_NPM_PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            msg = f"{step[1]} took longer than {_NPM_PATIENCE:.0f} s"
            raise PeerMissing(msg) from None
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip().splitlines()
            msg = f"fastify and better-sqlite3 cannot be installed: {reason[-1] if reason else ''}"
            raise PeerMissing(msg)
    ready.touch()
    return here


@contextmanager
def _printing_its_port(command: Sequence[str], directory: Path) -> Iterator[str]:
    """Run a server that prints its port first and ends when its standard input does."""
    process = subprocess.Popen(
        command, cwd=directory, env=inherited(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                msg = f"{Path(command[0]).name} {Path(command[1]).name} did not start"
                raise PeerMissing(msg)
            yield f"http://127.0.0.1:{int(line)}"
        finally:
            process.stdin.close()
            process.terminate()


def inherited() -> dict[str, str]:
    """This process's environment without the settings of a bot, able to import this code."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HILO_", "OPENAI_", "WHAPI_"))
    }
    return kept | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
