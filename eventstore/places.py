"""Which files a database on SQLite is in, whatever their names lead to by now.

Who moves, replaces or deletes one of them under a running process lets it go on in files that
whoever opens the database next will not find.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final, NamedTuple

SETTLED_NS: Final = 2_500_000_000
"""Coarser than any file system's clock."""
_MISSING: Final = 0


class DatabaseFiles(NamedTuple):
    """A database, its write-ahead log, and the index of that: their inodes, 0 for one missing."""

    device: int
    database: int
    wal: int
    shm: int

    @classmethod
    def of(cls, path: Path) -> DatabaseFiles | None:
        """Return the files of that name; None if there is no database."""
        name = str(path)
        try:
            found = os.stat(name)  # noqa: PTH116 - each commit asks
        except OSError:
            return None
        return cls(found.st_dev, found.st_ino, _inode(f"{name}-wal"), _inode(f"{name}-shm"))

    def but_for_wal(self, other: DatabaseFiles | None) -> bool:
        """Tell whether `other` differs in the write-ahead log, and in nothing else."""
        return other is not None and self != other and self == other._replace(wal=self.wal)


class Directory:
    """Whether names in a directory lead to the files that they led to before."""

    def __init__(self, path: Path) -> None:
        """Begin to watch it."""
        self._name = str(path)
        self._seen: tuple[int, int, int] | None = None

    def forget(self) -> None:
        """Let the next answer be no."""
        self._seen = None

    def is_as_it_was(self) -> bool:
        """Tell whether no name in it was made, moved or removed since this was asked last.

        One look at the directory: to look at a file that is being written makes its next write
        slower, since it must then get a time of its own. False, too, if something has changed so
        lately that another change might have got the same time.
        """
        before = self._seen
        try:
            found = os.stat(self._name)  # noqa: PTH116 - each commit asks
        except OSError:
            self._seen = None
            return False
        self._seen = (found.st_dev, found.st_ino, found.st_mtime_ns)
        return self._seen == before and time.time_ns() - found.st_mtime_ns > SETTLED_NS


def not_as_it_was(path: Path, found: DatabaseFiles | None) -> str:
    """Say that a log is not in the files that it was in, and what to do about it."""
    if found is None:
        return f"{path} is not the file that it was: it is missing, put it back"
    return (
        f"{path}, with its -wal and -shm, is not the file that it was: put that back, or start the "
        "server anew on what is there"
    )


def _inode(name: str) -> int:
    try:
        return os.stat(name).st_ino  # noqa: PTH116
    except OSError:
        return _MISSING
