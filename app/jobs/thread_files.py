"""The job `thread_files` of a node: `threads.json` follows the thread map, its backup every 15 min.

Each node has read models, and so files, of its own. What writes them is a child process; whatever
becomes of it, the bot goes on: a log line says why, `/metrics` counts it, and it is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from app.children import ChildFailed, piped
from app.projections import Views
from app.projections.bulk import worker_command
from app.settings import Settings
from app.thread_files import MODELS, HeldElsewhere, NotOurs, Written, place_of, remove
from eventstore.clock import monotonic_clock
from eventstore.errors import EventStoreError
from eventstore.keyring import Keyring
from eventstore.types import Clock

_log = structlog.get_logger(__name__)
LOOK_SECONDS: Final = 2.0
"""How often it is looked whether anything has changed, or anybody was forgotten."""

BACKUP_SECONDS: Final = 900.0
PAUSE_SECONDS: Final = 30.0
"""After a failure."""

_SHARE: Final = 20
"""Writing takes at most one part in so many of a processor's time, each one's start left out."""

_START_SECONDS: Final = 1.0

_MICRO: Final = 1_000_000


class Mark(msgspec.Struct, frozen=True):
    """What the files are to reflect."""

    position: int
    """Of the read models."""
    destructions: int
    """Of keys, people among them."""
    live: bool
    """Whether the read models follow the log."""


Look = Callable[[], Mark | None]
"""Tells what there is to reflect; None while the read models are being built."""

Write = Callable[[Sequence[str]], Coroutine[None, None, Written]]
"""Writes `threads.json`, with `--backup` its backup, too. Raises `ChildFailed` or `OSError`."""


class ThreadFiles:
    """Keeps the files of one bot up to date. Belongs to the event loop."""

    def __init__(
        self, look: Look, write: Write, *, readers: Executor, now: Clock, least_seconds: float
    ) -> None:
        """Write at most every `least_seconds`; `now` never goes back (µs)."""
        self._look = look
        self._write = write
        self._readers = readers
        self._now = now
        self._least = least_seconds
        self._working: asyncio.Future[Written] | None = None
        self._mark: Mark | None = None
        self._not_before = self._backup_at = self._retry_at = 0
        self._began = now()
        self._written_at: int | None = None
        self._people = 0
        self._writings = 0
        self._failures = 0
        self._failing = False

    async def look(self) -> None:
        """Write if it is time to; never raises for what may pass."""
        if self._now() < self._retry_at:
            return
        try:
            mark = await asyncio.get_running_loop().run_in_executor(self._readers, self._look)
        except (EventStoreError, OSError) as error:
            self._failed(f"{type(error).__name__}: {error}")
            return
        if mark is None or not self._is_due(mark):
            return
        began = self._now()
        also = ["--backup"] if began >= self._backup_at else []
        self._working = asyncio.ensure_future(self._write(also))
        try:
            report = await self._working
        except (ChildFailed, OSError, EventStoreError) as error:
            self._failed(str(error))
        else:
            self._done(report, mark, began)
        finally:
            self._working = None

    async def close(self) -> None:
        """End the writing in hand; the files are as they were, or new."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)

    def numbers(self) -> dict[str, float]:
        """Return what `/metrics` shows; the age counts from the start until they are written."""
        since = self._began if self._written_at is None else self._written_at
        return {
            "thread_files_age_seconds": (self._now() - since) / _MICRO,
            "thread_files_people": float(self._people),
            "thread_files_writings": float(self._writings),
            "thread_files_failures": float(self._failures),
            "thread_files_failing": float(self._failing),
        }

    def _is_due(self, mark: Mark) -> bool:
        before = self._mark
        if before is None or mark.destructions != before.destructions:
            return True
        # Rows that stand still make no new file, whose time would tell of something new.
        if mark.live and self._now() >= self._backup_at:
            return True
        return mark.position != before.position and self._now() >= self._not_before

    def _done(self, report: Written, mark: Mark, began: int) -> None:
        now = self._now()
        if self._mark is None or self._failing:
            _log.info("THREAD_FILES_WRITTEN", people=report.people)
        if report.kept:
            _log.warning("THREAD_FILES_KEPT_OLD", kept_as=report.kept)
        if report.unopened:
            _log.error("THREAD_FILES_UNOPENED", people=report.unopened)
        self._mark, self._failing, self._written_at = mark, False, now
        self._people = report.people
        self._writings += 1
        long = now - began - int(_START_SECONDS * _MICRO)
        self._not_before = max(began + int(self._least * _MICRO), now + _SHARE * long)
        if report.backup:
            self._backup_at = began + int(BACKUP_SECONDS * _MICRO)

    def _failed(self, reason: str) -> None:
        self._failures += 1
        self._failing = True
        self._retry_at = self._now() + int(PAUSE_SECONDS * _MICRO)
        _log.error("THREAD_FILES_FAILED", error=reason, again_in=PAUSE_SECONDS)


def keeping(
    settings: Settings, views: Views, keyring: Keyring, *, readers: Executor
) -> ThreadFiles:
    """Return what keeps the files of a running bot."""
    command = worker_command(settings.bot_directory, "thread-files", ())
    command.append(f"--tmp={settings.tmp.absolute()}")
    place = place_of(settings, keyring)

    def look() -> Mark | None:
        standings, destructions = views.standings(), keyring.destructions()
        if not standings.keys() >= set(MODELS):
            with suppress(NotOurs, HeldElsewhere):  # what cannot be written anew may not stay
                remove(place, unless_known=destructions)
            return None
        of = [standings[name] for name in MODELS]
        return Mark(
            position=min(one.cursor.position for one in of),
            destructions=destructions,
            live=all(one.state == "live" for one in of),
        )

    async def write(also: Sequence[str]) -> Written:
        child = await piped([*command, *also])
        said = [line async for line in child.chunks()]
        return msgspec.json.decode(b"".join(said), type=Written)

    return ThreadFiles(
        look,
        write,
        readers=readers,
        now=monotonic_clock,
        least_seconds=settings.thread_files_seconds,
    )


def removing(
    settings: Settings, keyring: Keyring, *, readers: Executor
) -> Callable[[], Awaitable[None]]:
    """Return the job of a bot without such files: those that it wrote once are removed.

    Nobody would keep them up to date, nor take out of them who is forgotten.
    """
    place = place_of(settings, keyring)

    async def look() -> None:
        try:
            if await asyncio.get_running_loop().run_in_executor(readers, remove, place):
                _log.info("THREAD_FILES_REMOVED", directory=str(place.directory))
        except (NotOurs, HeldElsewhere):  # another log's, or their last writer is still at it
            return
        except OSError as error:
            _log.error("THREAD_FILES_FAILED", doing="remove them", error=str(error))

    return look
