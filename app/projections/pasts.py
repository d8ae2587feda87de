"""Read models as of moments that somebody asks about: built in the worker, kept for a while.

Files in `past/` beside `views.db`, removed at the start and when newer moments push them out. The
answer about a moment never changes, so a file is good for as long as its epoch.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from app.projections.views import Views
from eventstore.types import Position

KEPT: Final = 8
"""So many moments are kept; those that are being built come on top."""

AT_ONCE: Final = 2
"""Moments being built at once: each is a process that reads the log."""
MOST_WAITING: Final = 16

_Key = tuple[Position, tuple[str, ...]]


class PastFailed(Exception):
    """The past could not be built; the message says why."""


class Pasts:
    """The past of one bot's read models. Belongs to one event loop."""

    def __init__(self, bot_directory: Path) -> None:
        """Begin without any: what an earlier process left is removed."""
        self._bot = bot_directory
        self._directory = bot_directory / "past"
        shutil.rmtree(self._directory, ignore_errors=True)
        self._building = asyncio.Semaphore(AT_ONCE)
        self._kept: OrderedDict[_Key, asyncio.Task[Views]] = OrderedDict()
        self.bound = KEPT
        self.hits = self.misses = self.evictions = 0

    def __len__(self) -> int:
        """How many moments are kept or being built."""
        return len(self._kept)

    async def views(self, position: Position, models: Sequence[str]) -> Views:
        """Return these read models as of `position`. Raises `PastFailed`."""
        key = (position, tuple(sorted(models)))
        task = self._kept.get(key)
        if task is not None:
            self.hits += 1
        else:
            self.misses += 1
            if sum(not one.done() for one in self._kept.values()) >= MOST_WAITING:
                msg = "too many moments are asked about at once: ask again later"
                raise PastFailed(msg)
            task = self._kept[key] = asyncio.ensure_future(self._build(key))
        self._kept.move_to_end(key)
        try:
            views = await asyncio.shield(task)
        except BaseException:
            if task.done() and self._kept.get(key) is task:  # it failed, and may be tried again
                del self._kept[key]
            raise
        self._push_out()
        return views

    async def close(self) -> None:
        """Close and remove everything."""
        for task in self._kept.values():
            task.cancel()
        await asyncio.gather(*self._kept.values(), return_exceptions=True)
        for task in self._kept.values():
            _let_go(task)
        self._kept.clear()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _push_out(self) -> None:
        while len(self._kept) > KEPT:
            oldest = next(iter(self._kept))
            if not self._kept[oldest].done():
                return
            _let_go(self._kept.pop(oldest))
            self.evictions += 1

    async def _build(self, key: _Key) -> Views:
        async with self._building:
            return await self._built(key)

    async def _built(self, key: _Key) -> Views:
        position, models = key
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{position}-{'-'.join(models)}.db"
        names = [argument for name in models for argument in ("--model", name)]
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app.worker", "past"),
            *("--data", str(self._bot.parent), "--bot", self._bot.name),
            *("--position", str(position), "--out", str(path), *names),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, errors = await child.communicate()
        except asyncio.CancelledError:
            child.kill()
            raise
        if child.returncode != 0:
            path.unlink(missing_ok=True)
            said = errors.decode(errors="replace").strip().splitlines()
            raise PastFailed(said[-1] if said else f"the worker ended with {child.returncode}")
        return Views(path)


def _let_go(task: asyncio.Task[Views]) -> None:
    """Close a moment's file and remove it; who still reads it keeps it until they are done."""
    if task.cancelled() or task.exception() is not None:
        return
    views = task.result()
    views.close()
    for ending in ("", "-wal", "-shm"):
        views.path.with_name(views.path.name + ending).unlink(missing_ok=True)
