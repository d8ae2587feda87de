"""Which files a database on SQLite is in, whatever their names lead to by now.

Who moves, replaces or deletes one of them under a running process lets it go on in files that
whoever opens the database next will not find.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

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


def _inode(name: str) -> int:
    try:
        return os.stat(name).st_ino  # noqa: PTH116
    except OSError:
        return _MISSING
