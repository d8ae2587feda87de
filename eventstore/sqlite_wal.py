"""Room for a log's write-ahead log, so that a commit need not make the file longer.

Where a commit makes its file longer, fsync has to write the file system's journal, too: twice the
time of a commit that writes over what is there (docs/performance.md, "What costs what"). SQLite
writes the WAL from its beginning after each checkpoint, so it is only until the first one that the
file grows: here it is made as long as it will be then, with zeros, which end a WAL like the end of
the file.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

PAGES: Final = 64_000
"""Pages of 4 KiB after which a WAL is checkpointed."""
_MIB: Final = 1024 * 1024
ROOM: Final = {50: 16 * _MIB, 1_000: 64 * _MIB, 4_000: 256 * _MIB}
"""How long a WAL is made after so many commits: a log that is hardly written does without, and the
last is what a busy one has when it is checkpointed."""
FREE: Final = 16
"""No room is taken unless so many times as much is free."""
_PIECE: Final = _MIB
_logger = logging.getLogger(__name__)


def reserve(log: Path, size: int) -> None:
    """Make the WAL of an open log `size` bytes long, if there is room. Safe beside its writers.

    Zeros are appended at the end of the file only, wherever that is by then: what SQLite has
    written stays. Never raises: without room the log is as slow as it would have been.
    """
    wal = log.with_name(log.name + "-wal")
    try:
        # SQLite's locks are on the log itself and its -shm: to close this file drops none.
        file = os.open(wal, os.O_WRONLY | os.O_APPEND)
        try:
            _extend(file, size)
        finally:
            os.close(file)
    except OSError as error:
        _logger.warning("WAL_NOT_RESERVED: %s: commits may be slower", error.strerror)


def _extend(file: int, size: int) -> None:
    space = os.fstatvfs(file)
    if space.f_bavail * space.f_frsize < FREE * size:
        return
    piece = bytes(_PIECE)
    while os.fstat(file).st_size < size:
        os.write(file, piece)
        os.fsync(file)
