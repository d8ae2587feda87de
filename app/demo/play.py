"""The demo from its first process to its verdict: traffic, kill -9, new starts, the judge."""

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

from app.demo.evidence import dump_views, followed, gather, merged
from app.demo.judge import Dump, Evidence, judge
from app.demo.kills import Killer
from app.demo.processes import CannotStart, ServerDied
from app.demo.reset import last_reset
from app.demo.sending import Sender
from app.demo.story import Course, Show, numbers_of, tell
from app.demo.timeline import excerpt
from app.demo.traffic import Plan, plan
from app.demo.world import World

KEPT: Final = 0
BROKEN: Final = 1
CANNOT_START: Final = 3

_SETTLE_SECONDS: Final = 90.0
_POLL_SECONDS: Final = 0.1


class NotSettled(Exception):
    """Some work was still open when the time was up."""


def run(  # noqa: PLR0913 - the options of the command
    *,
    users: int,
    messages: int,
    keep: Path | None,
    seed: int,
    as_json: bool,
    nodes: int = 1,
    postgres: bool = False,
) -> int:
    """Play the demo and return 0 if every promise was kept, 1 if not, 3 if it could not start.

    `nodes` servers share a PostgreSQL; one has a file of its own unless `postgres`. The story goes
    to stdout, or one JSON object instead; progress goes to stderr. `keep` names a directory for
    the files; without it they are removed, unless a promise was broken. Raises `SettingsError`.
    """
    planned = plan(users=users, messages=messages, seed=seed)
    directory = Path(tempfile.mkdtemp(prefix="hilo-demo-")) if keep is None else keep.absolute()
    code = CANNOT_START
    try:
        world = World(directory, nodes=nodes, postgres=postgres)
        code = asyncio.run(_demo(planned, world, kept=keep is not None, as_json=as_json))
    except CannotStart as error:
        sys.stderr.write(f"hilo demo: {error}\n")
    except ServerDied as error:
        code = BROKEN
        sys.stderr.write(f"hilo demo: broken: {error}\nThe files are in {directory}\n")
    finally:
        if keep is None and code != BROKEN:
            shutil.rmtree(directory, ignore_errors=True)
    return code


async def _demo(planned: Plan, world: World, *, kept: bool, as_json: bool) -> int:
    course = Course(
        users=len(planned.scripts), started_at=time.monotonic(), nodes=len(world.servers)
    )
    directory = world.directory
    with Show(planned) as show:
        async with world:
            performance = _Performance(planned, world, course, show)
            evidence = await _guarded(world, performance.play())
            show.step("judging every promise from outside")
            verdict = await asyncio.to_thread(judge, evidence)
            lines = await asyncio.to_thread(excerpt, world.settings, evidence.ledger, course.deaths)
            course.reset = await asyncio.to_thread(last_reset, world.settings)
            if kept or verdict.broken:
                world.kept = directory / "postgres"
    course.seconds = time.monotonic() - course.started_at
    left = directory if kept or verdict.broken else None
    if as_json:
        numbers = numbers_of(evidence, verdict, course)
        sys.stdout.write(msgspec.json.encode(numbers).decode() + "\n")
        show.complain(verdict, left)
    else:
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
        self._killer = Killer(world, planned, course, show)
        self._late = asyncio.Event()

    async def play(self) -> Evidence:
        """Act, and bring back what the judge needs. Raises `CannotStart`."""
        world, show = self._world, self._show
        servers = "the server" if len(world.servers) == 1 else f"{len(world.servers)} nodes"
        show.step(f"starting WhatsApp and OpenAI, simulated, and {servers}")
        await world.start()
        show.step(f"{self._course.users} people write {self._plan.messages} messages")
        sender = Sender(world.outside.whapi, self._heard)
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
                group.create_task(self._killer.work(sender))
                group.create_task(self._lose())
        except BaseExceptionGroup as errors:
            died = errors.subgroup(ServerDied)
            if died is not None:
                raise _first(died) from None
            raise

    async def _close(self, faults: list[str]) -> Evidence:
        world = self._world
        openai, whapi = await world.outside.accounts()
        self._show.step("stopping the server, and rebuilding the read models from the log")
        faults += await world.stop_servers()
        faults += await world.catch_up()
        faults += await world.rebuild_views()
        self._course.restarts = world.restarts
        return await asyncio.to_thread(
            gather,
            self._plan,
            openai,
            whapi,
            settings=world.settings,
            files=world.files,
            views=_views(world),
            exits=tuple(faults),
        )

    async def _lose(self) -> None:
        """Past the middle, let OpenAI forget a conversation: somebody's thread is reset."""
        await self._late.wait()
        await self._world.outside.lose_a_conversation()

    def _heard(self, count: int) -> None:
        self._show.sent(count)
        if count * 3 >= self._plan.messages * 2:
            self._late.set()
        self._killer.heard(count)

    async def _settle(self) -> None:
        """Wait until nothing is queued, running or due anywhere. Raises `NotSettled`.

        When the queue is empty and nobody writes any more, new webhooks come only from the bot's
        own sends; so once the servers have no open work, only their delivery is left to wait for.
        What one server has just written another may not have heard of yet: all is asked twice.
        """
        world = self._world
        deadline = time.monotonic() + _SETTLE_SECONDS

        async def nothing_queued() -> bool:
            return await world.outside.queue_drains(max(0.0, deadline - time.monotonic()))

        async def nothing_open() -> bool:
            self._show.answered(await world.outside.answered())
            return not await world.open_work()

        async def views_follow() -> bool:
            head = await asyncio.to_thread(world.head)
            return all(followed(server.bot / "views.db") == head for server in world.servers)

        for _ in range(2):
            await _until(nothing_queued, deadline, "webhooks are not acknowledged")
            await _until(nothing_open, deadline, "people still wait for an answer")
            await _until(nothing_queued, deadline, "echoes are not acknowledged")
            await _until(views_follow, deadline, "the read models are not at the end of the log")


def _first(errors: BaseExceptionGroup[ServerDied]) -> BaseException:
    """Return the first error of a group, however deep it is."""
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _views(world: World) -> tuple[Dump, Dump]:
    """Return the read models of all servers, and for each of them those that were rebuilt."""
    rebuilt_in, *others = world.servers
    live = {rebuilt_in.name: _dump(rebuilt_in.bot / "views.live.db")}
    live |= {server.name: _dump(server.bot / "views.db") for server in others}
    rebuilt = _dump(rebuilt_in.bot / "views.db")
    return merged(live), merged(dict.fromkeys(live, rebuilt))


async def _until(holds: Callable[[], Awaitable[bool]], deadline: float, otherwise: str) -> None:
    while not await holds():
        if time.monotonic() > deadline:
            msg = f"after {_SETTLE_SECONDS:g} s {otherwise}"
            raise NotSettled(msg)
        await asyncio.sleep(_POLL_SECONDS)


def _dump(path: Path) -> Dump:
    return dump_views(path) if path.exists() else {}
