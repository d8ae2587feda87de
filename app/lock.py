"""One server a log: exclusive locks on files and directories, freed by the kernel when it dies.

Whoever fails while it holds a lock takes back what it has made for that, as far as nothing else is
in it: a server that is refused leaves nothing behind. So a lock counts only as long as its name
leads to it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path

from eventstore.errors import StoreLocked


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold the lock of a file, which is made if it is missing, with the directories above it.

    They are taken back if the context raises. Raises `StoreLocked`, naming the process that holds
    the lock.
    """
    made: list[Path] = []

    def opened() -> int:
        _make(path.parent, made)
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            made.append(path)
            return descriptor
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    descriptor = _locked(path, opened, lambda: _in_use(what, _noted(path)))
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    except BaseException:
        _take_back(made)
        raise
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_directory(directory: Path, what: str) -> Iterator[None]:
    """Hold the lock of a directory itself, whatever names lead to it and whatever is deleted in it.

    The directory is made if it is missing, and taken back if the context raises and it is empty.
    Raises `StoreLocked`, naming the process that holds it if its note, `serve.pid` in the
    directory, is still there.
    """
    made: list[Path] = []
    note = directory / "serve.pid"

    def opened() -> int:
        _make(directory, made)
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    descriptor = _locked(directory, opened, lambda: _in_use(what, _noted(note)))
    try:
        with suppress(OSError):  # a full disk: the lock counts, not the note
            note.write_text(f"{os.getpid()}\n", "ascii")
        try:
            yield
        finally:
            with suppress(OSError):
                note.unlink()
    except BaseException:
        _take_back(made)
        raise
    finally:
        os.close(descriptor)


def _locked(path: Path, opened: Callable[[], int], in_use: Callable[[], str]) -> int:
    """Open and lock what `path` leads to, and return its descriptor. Raises `StoreLocked`."""
    while True:
        descriptor = opened()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _leads_to(path, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise StoreLocked(in_use()) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # who held it has taken it back between our two steps


def _leads_to(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _make(directory: Path, made: list[Path]) -> None:
    """Make a directory and those above it that are missing; note those that were made here."""
    missing = takewhile(lambda one: not one.exists(), (directory, *directory.parents))
    for one in reversed(list(missing)):
        try:
            one.mkdir()
        except FileExistsError:
            if not one.is_dir():
                raise
        else:
            made.append(one)


def _take_back(made: list[Path]) -> None:
    """Remove the lock and the directories that were made for it, up to one that is in use."""
    for one in reversed(made):
        with suppress(OSError):
            if one.is_dir():
                one.rmdir()
            else:
                one.unlink()


def _noted(note: Path) -> str:
    try:
        return note.read_text("ascii", "replace").strip()[:32]
    except OSError:
        return ""


def _in_use(what: str, holder: str) -> str:
    by = f"process {holder}" if holder else "another process"
    return f"{what} is in use by {by}: stop it first, or use another directory"
