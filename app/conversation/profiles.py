"""Name and labels of a person, read again from the gateway when somebody says they changed (A10).

In the background, a few at a time; an event only if they differ from what the log says. Messages
never lead here. What was asked for is durable first (`asked`): a shutdown, a kill or a gateway that
is down put it off, and nothing drops it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import TypeVar

import structlog
from msgspec.structs import replace

from app.aggregates.events import Profile
from app.aggregates.stream import ReadOnlyUser
from app.aggregates.user import User
from app.aggregates.user_state import UserState
from app.conversation.asked import Asked
from app.conversation.backoff import delay
from app.conversation.client_cache import ClientCache
from app.conversation.ports import Chat, Messenger, SendError, SendRefused
from app.conversation.repository import Repository
from eventstore.errors import EventStoreError, Forgotten, LogUnavailable
from eventstore.sealing import Sealed, Sealer
from eventstore.types import Micros, StreamName

_log = structlog.get_logger(__name__)
T = TypeVar("T")

AT_ONCE = 4
WAITING = 10_000
ATTEMPTS = 3

LATER_SECONDS = 30.0
"""Pause after as many failed attempts; it doubles up to `LATEST_SECONDS`, and ends when somebody
asks again."""

LATEST_SECONDS = 900.0


class TooManyUpdates(Exception):
    """So many wait already that the gateway is not to be asked for more now."""


class _Waiting:
    """One person who is to be read again."""

    def __init__(self, number: int) -> None:
        self.number = number
        """Of the last request."""
        self.news = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Profiles:
    """Reads profiles again. Belongs to one event loop."""

    def __init__(  # noqa: PLR0913 - the composition root's parts
        self,
        *,
        users: Repository[User, UserState],
        messenger: Messenger,
        clients: ClientCache,
        sealer: Sealer,
        asked: Asked,
        readers: Executor,
        now: Callable[[], Micros],
        jitter: Callable[[], float],
    ) -> None:
        """Take the parts."""
        self._asked = asked
        self._number = 0
        self._users = users
        self._messenger = messenger
        self._clients = clients
        self._sealer = sealer
        self._readers = readers
        self._now = now
        self._jitter = jitter
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._waiting: dict[StreamName, _Waiting] = {}
        self.failed = 0
        """Requests of this process that were given up: the gateway refused, or a bug of ours."""

    def __len__(self) -> int:
        """How many people are to be read again."""
        return len(self._waiting)

    async def start(self) -> None:
        """Go on with what an earlier process left. Raises `LogUnavailable`."""
        left = await self._in_reader(self._asked.all)
        self._number = max((self._number, *left.values()))
        for stream, number in left.items():
            self._begin(stream, number)
        if left:
            _log.info("HOOK_UPDATE", left_from_before=len(left))

    async def read_again(self, stream: StreamName) -> None:
        """Return when it is durable that somebody's name and labels are to be read again.

        Raises `TooManyUpdates` or `LogUnavailable`: then nothing is promised.
        """
        if stream not in self._waiting and len(self._waiting) >= WAITING:
            raise TooManyUpdates
        self._number += 1
        number = self._number
        await self._in_reader(self._asked.put, stream, number)
        self._begin(stream, number)

    def _begin(self, stream: StreamName, number: int) -> None:
        waiting = self._waiting.get(stream)
        if waiting is None:
            waiting = self._waiting[stream] = _Waiting(number)
            waiting.task = asyncio.ensure_future(self._until_done(stream, waiting))
        else:
            waiting.number = max(waiting.number, number)
            waiting.news.set()

    async def drain(self) -> None:
        """Return when nothing waits any more."""
        while tasks := [one.task for one in self._waiting.values() if one.task is not None]:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Leave what is not done yet to the next start."""
        tasks = [one.task for one in self._waiting.values() if one.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if tasks:
            _log.info("HOOK_UPDATE", left_for_next_start=len(tasks))

    async def _until_done(self, stream: StreamName, waiting: _Waiting) -> None:
        pause = LATER_SECONDS
        try:
            while True:
                number = waiting.number
                waiting.news.clear()
                async with self._slots:
                    done = await self._update(stream)
                if done:
                    await self._forget(stream, number)
                if waiting.number != number:  # asked again meanwhile
                    continue
                if done:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await waiting.news.wait()
                pause = min(2 * pause, LATEST_SECONDS)
        finally:
            del self._waiting[stream]

    async def _forget(self, stream: StreamName, number: int) -> None:
        try:
            await self._in_reader(self._asked.done, stream, number)
        except LogUnavailable as error:  # it will be read once more, after the next start
            _log.warning("HOOK_ERROR", userId=_owner(stream), error=str(error))

    async def _update(self, stream: StreamName) -> bool:
        """Read somebody again; return whether that is done with. False: try again later."""
        owner = _owner(stream)
        try:
            contact = (await self._users.look(stream)).state.contact
            if contact is None:
                _log.warning("HOOK_ERROR", userId=owner, error="no chat is known")
                return True
            opened = self._sealer.open
            chat = await self._in_reader(opened, owner, stream, "chat", contact.chat, str)
            updated = await self._record(stream, await self._ask(chat))
        except (SendRefused, Forgotten) as error:
            self._give_up(owner, error)
            return True
        except (SendError, EventStoreError, ReadOnlyUser) as error:
            _log.warning("HOOK_ERROR", userId=owner, error=_said(error), fallback="later")
            return False
        except Exception:  # noqa: BLE001 - in the background: nobody else would hear of it
            self.failed += 1
            _log.exception("HOOK_ERROR", userId=owner)
            return True
        self._clients.invalidate(stream)
        _log.info("HOOK_UPDATE", userId=owner, updated=updated)
        return True

    def _give_up(self, owner: str, error: Exception) -> None:
        self.failed += 1
        _log.warning("HOOK_ERROR", userId=owner, error=_said(error))

    async def _ask(self, chat: str) -> Chat:
        """Return what the gateway knows of a chat. Raises `SendError` when all attempts failed."""
        attempt = 1
        while True:
            try:
                return await self._messenger.chat(chat)
            except SendRefused:
                raise
            except SendError as error:
                if attempt == ATTEMPTS:
                    raise
                pause = delay(attempt, retry_after=error.retry_after, jitter=self._jitter())
            attempt += 1
            await asyncio.sleep(pause)

    async def _record(self, stream: StreamName, card: Chat) -> bool:
        """Make name and labels durable if they differ; return whether they did."""
        owner = _owner(stream)
        while True:
            sealed = (await self._users.look(stream)).state.profile
            known = await self._in_reader(self._open, owner, stream, sealed)
            profile = replace(known, name=card.name or known.name, labels=card.labels)
            if profile.name == known.name and set(profile.labels) == set(known.labels):
                return False
            new = await self._in_reader(self._sealer.seal, owner, stream, "profile", profile)

            def command(
                user: User, before: Sealed[Profile] | None = sealed, new: Sealed[Profile] = new
            ) -> bool:
                if user.state.profile != before:  # somebody else was faster: compare again
                    return False
                user.update_profile(new, now=self._now())
                return True

            if await self._users.decide(stream, command):
                return True

    def _open(self, owner: str, stream: StreamName, sealed: Sealed[Profile] | None) -> Profile:
        if sealed is None:
            return Profile()
        return self._sealer.open(owner, stream, "profile", sealed, Profile)

    async def _in_reader(self, work: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, work, *arguments)


def _said(error: Exception) -> str:
    return error.code if isinstance(error, SendError) else type(error).__name__


def _owner(stream: StreamName) -> str:
    return stream.partition("/")[2]
