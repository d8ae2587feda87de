"""Files that are derived from the log: known when damaged or replaced, put aside and made anew.

Only the process that owns such a file puts it aside: the server, which holds the bot's lock, and a
rebuild. Nothing is deleted, so that what damaged the file can be looked into.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import structlog

T = TypeVar("T")
FileId = tuple[int, int]
"""Device and inode: which file it is, whatever its name."""

_DAMAGED = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
_PRIMARY = 0xFF
_log = structlog.get_logger(__name__)


def is_damaged(error: BaseException) -> bool:
    """Tell whether an error says that a file is no database, or a malformed one."""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    code: int = getattr(error, "sqlite_errorcode", 0)
    # Short: a page is missing that the header counts, or the write-ahead log.
    return code & _PRIMARY in _DAMAGED or code == sqlite3.SQLITE_IOERR_SHORT_READ


def file_id(path: Path) -> FileId | None:
    """Return which file bears the name now; None if none does."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def put_aside(path: Path, error: BaseException) -> Path:
    """Rename a damaged file, with its -wal and -shm, and return its new name."""
    moved = path.with_name(f"{path.name}.damaged-{time.time_ns() // 1000}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(moved.with_name(moved.name + suffix))
    _log.warning("DERIVED_FILE_DAMAGED", file=path.name, kept_as=moved.name, error=str(error))
    return moved


def is_emptied(path: Path) -> bool:
    """Tell whether a database of that name has lost even its header."""
    return path.is_file() and path.stat().st_size == 0


def wal_of(path: Path) -> FileId | None:
    """Return which file is the write-ahead log of the one of that name now."""
    return file_id(path.with_name(f"{path.name}-wal"))


def remove_leftovers(path: Path, wal: FileId | None) -> None:
    """Remove what is left of a file that was deleted, emptied or replaced, and had that `wal`.

    Another file of its name would take a -wal and a -shm for its own. Whoever still has the old
    one open goes on with them.
    """
    if is_emptied(path):
        path.unlink()  # a new one in its place is known to be another
    if not path.exists() or (wal is not None and wal == wal_of(path)):
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


def opened(path: Path, opening: Callable[[Path], T]) -> T:
    """Return what `opening(path)` returns; a damaged file is put aside first, for a new one.

    For the owner of the file alone. Raises whatever else `opening` raises.
    """
    before = file_id(path)
    try:
        return opening(path)
    except sqlite3.DatabaseError as error:
        if not is_damaged(error):
            raise
        if file_id(path) == before:  # or else another owner has just made a new one
            put_aside(path, error)
    return opening(path)
