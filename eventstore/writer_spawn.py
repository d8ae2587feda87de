"""Starting the process that writes a log, and the socket between it and whoever started it."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path
from typing import Final, NamedTuple

from eventstore.children import start
from eventstore.errors import LogUnavailable
from eventstore.frames import READ

CHILD: Final = "eventstore.writer_child"


class LogFile(NamedTuple):
    """Which file a log is in, whatever its name is by then."""

    device: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> LogFile | None:
        """Return the file of that name, if there is one."""
        try:
            found = os.stat(path)  # noqa: PTH116 - each commit asks
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
    try:
        whole = threading.current_thread() is threading.main_thread()
        process, ours = start(CHILD, [str(path), str(int(says))], lasting=whole)
    except OSError as error:
        msg = f"cannot start the process that writes {path}: {error}"
        raise LogUnavailable(msg) from error
    for side in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        ours.setsockopt(socket.SOL_SOCKET, side, READ)
    ours.settimeout(0)
    return process, ours
