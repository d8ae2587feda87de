"""Starting the process that writes a log, and the socket between it and whoever started it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from eventstore.errors import LogUnavailable
from eventstore.writer_wire import READ

CHILD: Final = "eventstore.writer_child"
HELD: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that tell a server to end, often by way of all its processes: it tells the child."""


class LogFile(NamedTuple):
    """Which file a log is in, whatever its name is by then."""

    device: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> LogFile | None:
        """Return the file of that name, if there is one."""
        try:
            found = path.stat()
        except OSError:
            return None
        return cls(found.st_dev, found.st_ino)


def spawn(
    path: Path, file: LogFile | None, *, says: bool = True
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a process that writes the log at `path`; return it and our end of the socket.

    It `says` why if it cannot use the log: of those that are tried one after the other, some do.
    Raises `LogUnavailable`, also if the log is not in `file` any more: whoever reads it still
    reads that one, and in place of a missing file the process would make an empty log.
    """
    if LogFile.of(path) != file:
        msg = f"{path} is not the file that it was: put that back, or start the server anew"
        raise LogUnavailable(msg)
    ours, theirs = socket.socketpair()
    with theirs:
        # The system tells a child of the end of the thread that started it, not of the process.
        whole = threading.current_thread() is threading.main_thread()
        parent = os.getpid() if whole else 0
        numbers = (theirs.fileno(), parent, int(says))
        command = [sys.executable, "-m", CHILD, str(path), *map(str, numbers)]
        try:
            with _held(HELD):
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
        except OSError as error:
            ours.close()
            msg = f"cannot start the process that writes {path}: {error}"
            raise LogUnavailable(msg) from error
    for side in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        ours.setsockopt(socket.SOL_SOCKET, side, READ)
    ours.settimeout(0)
    return process, ours


@contextmanager
def _held(signals: tuple[signal.Signals, ...]) -> Iterator[None]:
    """Hold signals back from this thread, and for ever from the processes that it starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
