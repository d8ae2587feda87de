"""One server a log: exclusive locks on files and directories, freed by the kernel when it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eventstore.errors import StoreLocked


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold the lock. Raises `StoreLocked`, naming the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            raise StoreLocked(_in_use(what, holder)) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_directory(directory: Path, what: str) -> Iterator[None]:
    """Hold the lock of a directory itself, whatever names lead to it and whatever is deleted in it.

    The directory is made if it is missing. Raises `StoreLocked`, naming the process that holds it
    if its note, `serve.pid` in the directory, is still there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    note = directory / "serve.pid"
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreLocked(_in_use(what, _noted(note))) from None
        with suppress(OSError):  # a full disk: the lock counts, not the note
            note.write_text(f"{os.getpid()}\n", "ascii")
        try:
            yield
        finally:
            with suppress(OSError):
                note.unlink()
    finally:
        os.close(descriptor)


def _noted(note: Path) -> str:
    try:
        return note.read_text("ascii", "replace").strip()[:32]
    except OSError:
        return ""


def _in_use(what: str, holder: str) -> str:
    by = f"process {holder}" if holder else "another process"
    return f"{what} is in use by {by}: stop it first, or use another directory"
