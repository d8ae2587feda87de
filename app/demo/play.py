"""The demo from its first process to its verdict: traffic, a kill -9 half-way, a second start."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from app.demo.evidence import dump_views, followed, gather
from app.demo.judge import Dump, Evidence, Verdict, judge
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
_REPEATED_AFTER: Final = 10
"""How many people's first messages are delivered once more after the restart, at most."""


class NotSettled(Exception):
    """Some work was still open when the time was up."""


def run(*, users: int, messages: int, keep: Path | None, seed: int, as_json: bool) -> int:
    """Play the demo and return 0 if every promise was kept, 1 if not, 3 if it could not start.

    The story goes to stdout, or one JSON object instead; progress goes to stderr. `keep` names
    a directory for the files; without it they are removed, unless a promise was broken.
    """
    directory = Path(tempfile.mkdtemp(prefix="hilo-demo-")) if keep is None else keep.absolute()
    code = CANNOT_START
    try:
        code = asyncio.run(_demo(users, messages, seed, directory, as_json=as_json, kept=bool(keep)))
    except CannotStart as error:
        sys.stderr.write(f"hilo demo: {error}\n")
    except ServerDied as error:
        code = BROKEN
        sys.stderr.write(f"hilo demo: {error}\nThe files are in {directory}\n")
    finally:
        if keep is None and code != BROKEN:
            shutil.rmtree(directory, ignore_errors=True)
    return code


async def _demo(
    users: int, messages: int, seed: int, directory: Path, *, as_json: bool, kept: bool
) -> int:
    planned = plan(users=users, messages=messages, seed=seed)
    with Show(planned) as show:
        async with World(directory, seed=seed) as world:
            course = Course(users=users, started_at=time.monotonic())
            evidence = await _guarded(world, _perform(planned, world, course, show))
            show.step("judging every promise from outside")
            verdict = await asyncio.to_thread(judge, evidence)
        course.seconds = time.monotonic() - course.started_at
    keeping = kept or bool(verdict.broken)
    if as_json:
        sys.stdout.write(msgspec.json.encode(numbers_of(evidence, verdict, course)).decode() + "\n")
        show.complain(verdict, directory if keeping else None)
    else:
        lines = await asyncio.to_thread(
            excerpt, world.bot, evidence.ledger, course.killed_at
        )
        tell(evidence, verdict, course, lines, directory if keeping else None)
    return BROKEN if verdict.broken else KEPT


async def _guarded(world: World, work: Awaitable[Evidence]) -> Evidence:
    """Do the work, unless the server ends by itself: then raise `ServerDied`."""
    working = asyncio.ensure_future(work)
    watching: asyncio.Task[None] | None = None
    try:
        while not working.done():
            watching = watching or asyncio.ensure_future(world.watch())
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
    finally:
        tasks = [task for task in (working, watching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return working.result()


async def _perform(planned: Plan, world: World, course: Course, show: Show) -> Evidence:
    show.step("starting WhatsApp and OpenAI, simulated, and the server")
    await world.start_outside()
    await world.start_server()
    await world.set_manners()
    show.step(f"{course.users} people write {planned.messages} messages")
    half = asyncio.Event()

    def sent() -> None:
        show.sent(sender.messages)
        if sender.messages * 2 >= planned.messages:
            half.set()

    sender = Sender(world.whapi, sent)
    async with asyncio.TaskGroup() as group:
        for script in planned.scripts:
            group.create_task(sender.play(script))
        group.create_task(_kill_half_way(half, world, planned, sender, course, show))
    show.step("waiting until everything is answered")
    exits: list[str] = []
    try:
        await _settle(world, show)
    except NotSettled as error:
        exits.append(str(error))
    openai, whapi = await world.accounts()
    show.step("stopping the server, and rebuilding the read models from the log")
    code = await world.stop_server()
    if code:
        exits.append(f"SIGTERM ended it with exit code {code}")
    live, rebuilt, failed = await _rebuild(world)
    exits += [failed] if failed else []
    course.explicit_duplicates = sender.repeated
    course.restarts = world.restarts
    return await asyncio.to_thread(
        gather,
        planned,
        openai,
        whapi,
        bot=world.bot,
        files=(world.data, world.logs, world.directory / "server.txt"),
        live=live,
        rebuilt=rebuilt,
        exits=tuple(exits),
    )


async def _kill_half_way(  # noqa: PLR0913 - everybody is on the stage
    half: asyncio.Event,
    world: World,
    planned: Plan,
    sender: Sender,
    course: Course,
    show: Show,
) -> None:
    await half.wait()
    course.running_at_kill = await world.model_is_busy(
        max(1, min(10, course.users // 4)), _BUSY_PATIENCE
    )
    await world.kill_server()
    course.killed_at = time.time_ns() // 1000
    course.sent_at_kill = sender.messages
    show.step(f"kill -9, with {course.running_at_kill} answers in the making; starting again")
    await world.restart_server()
    course.down_seconds = time.time() - course.killed_at / 1e6
    await sender.repeat_some(planned, _REPEATED_AFTER)


async def _settle(world: World, show: Show) -> None:
    """Wait until nothing is queued, running or due anywhere. Raises `NotSettled`.

    When the queue is empty and nobody writes any more, new webhooks come only from the bot's own
    sends; so once the server has no open work, only their delivery is left to wait for.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS

    def left() -> float:
        return max(0.0, deadline - time.monotonic())

    await _until(lambda: world.queue_drains(left()), deadline, "webhooks are not acknowledged")

    async def nothing_open() -> bool:
        _, whapi = await world.accounts()
        show.answered(whapi.sent)
        return not await world.open_work()

    await _until(nothing_open, deadline, "people still wait for an answer")
    await _until(lambda: world.queue_drains(left()), deadline, "echoes are not acknowledged")

    async def views_follow() -> bool:
        return followed(world.bot / "views.db") == await world.head()

    await _until(views_follow, deadline, "the read models do not reach the end of the log")


async def _until(
    holds: Callable[[], Awaitable[bool]], deadline: float, otherwise: str
) -> None:
    while not await holds():
        if time.monotonic() > deadline:
            msg = f"after {_SETTLE_SECONDS:g} s {otherwise}"
            raise NotSettled(msg)
        await asyncio.sleep(0.1)


async def _rebuild(world: World) -> tuple[Dump, Dump, str]:
    """Return the read models that followed live, those rebuilt from the log, and what failed."""
    failed = await world.rebuild_views()
    live = await asyncio.to_thread(dump_views, world.bot / "views.live.db")
    return live, await asyncio.to_thread(dump_views, world.bot / "views.db"), failed
