"""Where the thread files are, whose they are, and how they are replaced.

    threads.json  threads.json.backup     what others read
    threads.json.lock                     the claim: which log these files are of; held to write

The claim tells Hilo's own files from those of the old bot: what stood there before the claim is
somebody's only copy, so it is kept under a name that `hilo import` knows, never replaced. It also
holds how many destructions of keys the files know of, so that a person who was forgotten while
nothing ran is noticed at the next start.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from app.whole import growing_names, whole_file

_OWNER_ONLY: Final = 0o600
_CLAIM_BYTES: Final = 4096
_NAMES: Final = (("threads.json", "threads"), ("threads.json.backup", "threads-backup"))


class NotOurs(OSError):
    """The files are those of another log."""


class HeldElsewhere(Exception):
    """Another process is at the files just now."""


class _Claim(msgspec.Struct, frozen=True):
    owner: str
    """A fingerprint of the bot's keyring: it stays the same wherever the log moves."""
    log: str
    """Where the log is, for people."""
    destructions: int = -1


class Place:
    """A directory with the thread files of one log. The files exist only if they were written."""

    def __init__(self, directory: Path, *, owner: str, log: str) -> None:
        """Name the directory and the log. Nothing is touched before `held`."""
        self.directory = directory
        self.current = directory / _NAMES[0][0]
        self.backup = directory / _NAMES[1][0]
        self.claim = directory / f"{self.current.name}.lock"
        self._ours = _Claim(owner, log)

    @property
    def is_claimed(self) -> bool:
        """Whether files of some log were written here, and not removed since."""
        return self.claim.exists()

    @contextmanager
    def held(self, *, wait: bool = True) -> Iterator[Held]:
        """Give the files to one writer at a time; take the directory over at the first time.

        Raises `NotOurs`, `HeldElsewhere` if not to `wait`, or `OSError`.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        descriptor = self._locked(wait=wait)
        try:
            claim = _read(descriptor)
            if claim is not None and claim.owner != self._ours.owner:
                msg = (
                    f"{self.current} is written for the log {claim.log}: set HILO_TMP to another "
                    f"directory, or delete {self.claim.name} there if that log is gone"
                )
                raise NotOurs(msg)
            kept = self._keep_what_is_there() if claim is None else ()
            held = Held(self, descriptor, claim or self._ours, kept)
            if claim is None:
                held.knows(held.destructions)
            held.sweep()
            yield held
        finally:
            os.close(descriptor)

    def _locked(self, *, wait: bool) -> int:
        """Return the claim, open and locked; it may be deleted while we wait for it."""
        flags = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
        while True:
            descriptor = os.open(
                self.claim, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _OWNER_ONLY
            )
            try:
                fcntl.flock(descriptor, flags)
                if os.fstat(descriptor).st_nlink:
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                msg = f"another process is at {self.current}"
                raise HeldElsewhere(msg) from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _keep_what_is_there(self) -> tuple[str, ...]:
        """Rename what somebody else wrote to names that tell its time; return them."""
        kept = []
        for name, stem in _NAMES:
            old = self.directory / name
            if not os.path.lexists(old):
                continue
            at = datetime.fromtimestamp(old.lstat().st_mtime, UTC)
            while os.path.lexists(aside := self.directory / f"{stem}-{_file_time(at)}.json"):
                at += timedelta(milliseconds=1)
            old.rename(aside)
            kept.append(aside.name)
        return tuple(kept)


def remove(place: Place, *, unless_known: int | None = None) -> bool:
    """Remove the files, if there are any, unless they know of so many destructions; never wait.

    Return whether they were removed. Raises `NotOurs`, `HeldElsewhere` or `OSError`.
    """
    if not place.is_claimed:
        return False
    with place.held(wait=False) as held:
        if held.destructions == unless_known:
            return False
        held.remove()
    return True


class Held:
    """The files, in the hands of their one writer."""

    def __init__(self, place: Place, descriptor: int, claim: _Claim, kept: tuple[str, ...]) -> None:
        """See `Place.held`. `kept` are the new names of what stood there before."""
        self._place = place
        self._descriptor = descriptor
        self._claim = claim
        self.kept = kept

    @property
    def destructions(self) -> int:
        """How many destructions of keys the files know of; -1: nobody knows."""
        return self._claim.destructions

    def replace(self, write: Callable[[BinaryIO], None], *, backup: bool) -> None:
        """Replace `threads.json` by what `write` writes; with `backup` the backup, too.

        Each is replaced whole and durably, or stays as it was. Raises `OSError`.
        """
        place = self._place
        with whole_file(place.current) as file:
            write(file)
        if backup:
            with place.current.open("rb") as written, whole_file(place.backup) as file:
                shutil.copyfileobj(written, file)

    def knows(self, destructions: int) -> None:
        """Note what the files know: one write of a fixed length, whole or not done."""
        self._claim = msgspec.structs.replace(self._claim, destructions=destructions)
        os.pwrite(self._descriptor, msgspec.json.encode(self._claim).ljust(_CLAIM_BYTES), 0)
        os.fsync(self._descriptor)

    def sweep(self) -> None:
        """Delete what killed writers left."""
        for left in self._place.directory.glob(growing_names(self._place.current)):
            left.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete both files and the claim."""
        for path in (self._place.current, self._place.backup, self._place.claim):
            path.unlink(missing_ok=True)


def _read(descriptor: int) -> _Claim | None:
    try:
        return msgspec.json.decode(os.pread(descriptor, _CLAIM_BYTES, 0), type=_Claim)
    except msgspec.MsgspecError:  # empty: nobody has claimed it
        return None


def _file_time(at: datetime) -> str:
    """Return an instant as the old bot put it into names: 2025-07-21T17-36-13-918Z."""
    return f"{at:%Y-%m-%dT%H-%M-%S}-{at.microsecond // 1000:03}Z"
