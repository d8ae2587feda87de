"""Files that are derived from the log: known when damaged or replaced, put aside and made anew.

Only the process that owns such a file puts it aside: the server, which holds the bot's lock, and a
rebuild. Nothing is deleted, so that what damaged the file can be looked into. A file that may not
be opened is left where it is: a new one in its place might be refused next.
"""

from __future__ import annotations

import os
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
_REFUSED = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM})
_PRIMARY = 0xFF
_log = structlog.get_logger(__name__)


class Unusable(sqlite3.OperationalError):
    """A file may not be read or written. The message says which, and what to do about it."""

    def __init__(self, path: Path, error: sqlite3.Error) -> None:
        super().__init__(
            f"{path} cannot be used ({error}): let this user read and write it and its directory, "
            "or move it away, and a new one is made"
        )
        self.sqlite_errorcode = error.sqlite_errorcode
        self.sqlite_errorname = error.sqlite_errorname


def is_refused(error: sqlite3.Error) -> bool:
    """Tell whether an error says that a file may not be opened, or not be written."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY in _REFUSED


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


def put_aside(path: Path, error: BaseException | str) -> Path:
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


class Contents:
    """Whether a database's file holds what SQLite has written into it, and nothing else.

    With a write-ahead log the file itself changes at checkpoints alone, which are part of a commit.
    What changes it at another time (an older copy that was copied into it) leaves pages of two
    ages behind, and SQLite, which has many of them in memory, does not see it.
    """

    def __init__(self, path: Path, *, calm_seconds: float = 0.0) -> None:
        """Take what is there now for what it should be.

        `calm_seconds`: for how long others may be at their checkpoint after they have committed.
        """
        self._path = path
        self._calm_seconds = calm_seconds
        self._calm_from = time.monotonic() + calm_seconds
        self._others = 0
        self._strange = False
        self.note()

    def note(self) -> None:
        """After our own commit, remember what the file is like."""
        self._left = _looks(self._path)

    def compare(self) -> None:
        """Before our own transaction, look whether it is still like that."""
        self._strange = self._strange or _looks(self._path) != self._left

    def are_foreign(self, others: int = 0) -> bool:
        """Tell whether something else was written; `others` changes with what others commit."""
        self.compare()
        if others != self._others or (self._strange and time.monotonic() < self._calm_from):
            self._others, self._strange = others, False
            self._calm_from = time.monotonic() + self._calm_seconds
            self.note()
        return self._strange


def _looks(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - each batch asks
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


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
    """Return what `opening(path)` returns; what is damaged or no file is put aside for a new one.

    For the owner of the file alone. Raises `Unusable`, and whatever else `opening` raises.
    """
    before = file_id(path)
    try:
        return opening(path)
    except sqlite3.DatabaseError as error:
        if not is_damaged(error) and not path.is_dir():
            if is_refused(error):
                raise Unusable(path, error) from error
            raise
        if file_id(path) == before:  # or else another owner has just made a new one
            put_aside(path, error)
    return opening(path)
