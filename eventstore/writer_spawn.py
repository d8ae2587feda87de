"""Starting the process that writes a log, and the socket between it and whoever started it."""

from __future__ import annotations

import socket
import subprocess
import threading
from pathlib import Path
from typing import Final

from eventstore.children import start
from eventstore.errors import LogUnavailable
from eventstore.frames import READ
from eventstore.places import DatabaseFiles, not_as_it_was

CHILD: Final = "eventstore.writer_child"


def spawn(
    path: Path, files: DatabaseFiles | None, *, says: bool = True
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a process that writes the log at `path`; return it and our end of the socket.

    It `says` why if it cannot use the log: of those that are tried one after the other, some do.
    Raises `LogUnavailable`, also if the log is not in `files` any more: whoever reads it still
    reads those, and in place of a missing file the process would make an empty log.
    """
    found = DatabaseFiles.of(path)
    if found != files:
        raise LogUnavailable(not_as_it_was(path, found))
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
