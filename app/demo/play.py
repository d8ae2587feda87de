"""The demo from its first process to its verdict: traffic, a kill -9 half-way, a second start."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import msgspec

from app.demo.evidence import dump_views, followed, gather
from app.demo.judge import Dump, Evidence, judge
from app.demo.sending import Sender
from app.demo.story import Course, Show, numbers_of, tell
from app.demo.timeline import excerpt
from app.demo.traffic import Plan, plan
from app.demo.world import CannotStart, ServerDied, World

KEPT: Final = 0
BROKEN: Final = 1
CANNOT_START: Final = 3

_BUSY_PATIENCE: Final = 10.0
_SETTLE_SECONDS: Final = 90.0
_POLL_SECONDS: Final = 0.1
_REPEATED_AFTER: Final = 10
"""How many people's first messages are delivered once more after the restart, at most."""


class NotSettled(Exception):
    """Some work was still open when the time was up."""


def run(*, users: int, messages: int, keep: Path | None, seed: int, as_json: bool) -> int:
    """Play the demo and return 0 if every promise was kept, 1 if not, 3 if it could not start.

    The story goes to stdout, or one JSON object instead; progress goes to stderr. `keep` names
    a directory for the files; without it they are removed, unless a promise was broken.
    """
    planned = plan(users=users, messages=messages, seed=seed)
    directory = Path(tempfile.mkdtemp(prefix="hilo-demo-")) if keep is None else keep.absolute()
    code = CANNOT_START
    try:
        code = asyncio.run(_demo(planned, directory, kept=keep is not None, as_json=as_json))
    except CannotStart as error:
        sys.stderr.write(f"hilo demo: {error}\n")
    except ServerDied as error:
        code = BROKEN
        sys.stderr.write(f"hilo demo: broken: {error}\nThe files are in {directory}\n")
    finally:
        if keep is None and code != BROKEN:
            shutil.rmtree(directory, ignore_errors=True)
    return code


async def _demo(planned: Plan, directory: Path, *, kept: bool, as_json: bool) -> int:
    course = Course(users=len(planned.scripts), started_at=time.monotonic())
    with Show(planned) as show:
        async with World(directory) as world:
            performance = _Performance(planned, world, course, show)
            evidence = await _guarded(world, performance.play())
        show.step("judging every promise from outside")
        verdict = await asyncio.to_thread(judge, evidence)
    course.seconds = time.monotonic() - course.started_at
    left = directory if kept or verdict.broken else None
    if as_json:
        numbers = numbers_of(evidence, verdict, course)
        sys.stdout.write(msgspec.json.encode(numbers).decode() + "\n")
        show.complain(verdict, left)
    else:
        lines = await asyncio.to_thread(excerpt, world.settings, evidence.ledger, course.killed_at)
        tell(evidence, verdict, course, lines, left)
    return BROKEN if verdict.broken else KEPT


async def _guarded(world: World, work: Coroutine[Any, Any, Evidence]) -> Evidence:
    """Do the work, unless the server ends by itself: then raise `ServerDied`."""
    working = asyncio.create_task(work)
    watching = asyncio.create_task(world.watch())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()
    finally:
        watching.cancel()
        working.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)
    return working.result()


class _Performance:
    """One demo, acted out."""

    def __init__(self, planned: Plan, world: World, course: Course, show: Show) -> None:
        self._plan = planned
        self._world = world
        self._course = course
        self._show = show
        self._half_sent = asyncio.Event()

    async def play(self) -> Evidence:
        """Act, and bring back what the judge needs. Raises `CannotStart`."""
        world, show = self._world, self._show
        show.step("starting WhatsApp and OpenAI, simulated, and the server")
        await world.start_outside()
        await world.start_server()
        await world.set_manners()
        show.step(f"{self._course.users} people write {self._plan.messages} messages")
        sender = Sender(world.whapi, self._heard)
        await self._act(sender)
        self._course.explicit_duplicates = sender.repeated
        show.step("waiting until everything is answered")
        faults: list[str] = []
        try:
            await self._settle()
        except NotSettled as error:
            faults.append(str(error))
        return await self._close(faults)

    async def _act(self, sender: Sender) -> None:
        """Let everybody write, and somebody kill. Raises `ServerDied`."""
        try:
            async with asyncio.TaskGroup() as group:
                for script in self._plan.scripts:
                    group.create_task(sender.play(script))
                group.create_task(self._kill_half_way(sender))
        except BaseExceptionGroup as errors:
            died = errors.subgroup(ServerDied)
            if died is not None:
                raise died.exceptions[0] from None
            raise

    async def _close(self, faults: list[str]) -> Evidence:
        world = self._world
        openai, whapi = await world.accounts()
        self._show.step("stopping the server, and rebuilding the read models from the log")
        code = await world.stop_server()
        if code:
            faults.append(f"SIGTERM ended it with exit code {code}")
        failed = await world.rebuild_views()
        if failed:
            faults.append(failed)
        self._course.restarts = world.restarts
        return await asyncio.to_thread(
            gather,
            self._plan,
            openai,
            whapi,
            settings=world.settings,
            files=world.files,
            views=(_dump(world.bot / "views.live.db"), _dump(world.bot / "views.db")),
            exits=tuple(faults),
        )

    def _heard(self, count: int) -> None:
        self._show.sent(count)
        if count * 2 >= self._plan.messages:
            self._half_sent.set()

    async def _kill_half_way(self, sender: Sender) -> None:
        world, course = self._world, self._course
        await self._half_sent.wait()
        busy = max(1, min(10, course.users // 4))
        course.running_at_kill = await world.model_is_busy(busy, _BUSY_PATIENCE)
        await world.kill_server()
        course.killed_at = time.time_ns() // 1000
        course.sent_at_kill = sender.messages
        self._show.step(
            f"kill -9, with {course.running_at_kill} answers in the making; starting again"
        )
        await world.restart_server()
        course.down_seconds = time.time() - course.killed_at / 1e6
        await sender.repeat_some(self._plan, _REPEATED_AFTER)

    async def _settle(self) -> None:
        """Wait until nothing is queued, running or due anywhere. Raises `NotSettled`.

        When the queue is empty and nobody writes any more, new webhooks come only from the bot's
        own sends; so once the server has no open work, only their delivery is left to wait for.
        """
        world = self._world
        deadline = time.monotonic() + _SETTLE_SECONDS

        async def nothing_queued() -> bool:
            return await world.queue_drains(max(0.0, deadline - time.monotonic()))

        async def nothing_open() -> bool:
            self._show.answered(await world.answered())
            return not await world.open_work()

        async def views_follow() -> bool:
            return followed(world.bot / "views.db") == await world.head()

        await _until(nothing_queued, deadline, "webhooks are not acknowledged")
        await _until(nothing_open, deadline, "people still wait for an answer")
        await _until(nothing_queued, deadline, "echoes are not acknowledged")
        await _until(views_follow, deadline, "the read models are not at the end of the log")


async def _until(holds: Callable[[], Awaitable[bool]], deadline: float, otherwise: str) -> None:
    while not await holds():
        if time.monotonic() > deadline:
            msg = f"after {_SETTLE_SECONDS:g} s {otherwise}"
            raise NotSettled(msg)
        await asyncio.sleep(_POLL_SECONDS)


def _dump(path: Path) -> Dump:
    return dump_views(path) if path.exists() else {}
