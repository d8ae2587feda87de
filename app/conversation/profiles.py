"""Name and labels of a person, read again from the gateway when somebody says they changed (A10).

In the background, a few at a time; an event only if they differ from what the log says. Messages
never lead here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

import structlog

from app.aggregates.events import Profile
from app.aggregates.user import User
from app.aggregates.user_state import UserState
from app.conversation.backoff import delay
from app.conversation.client_cache import ClientCache
from app.conversation.ports import Chat, Messenger, SendError, SendRefused
from app.conversation.repository import Repository
from eventstore.errors import EventStoreError
from eventstore.sealing import Sealed, Sealer
from eventstore.types import Micros, StreamName

_log = structlog.get_logger(__name__)
T = TypeVar("T")

AT_ONCE = 4
WAITING = 10_000
ATTEMPTS = 3


class TooManyUpdates(Exception):
    """So many wait already that the gateway is not to be asked for more now."""


class Profiles:
    """Reads profiles again. Belongs to one event loop."""

    def __init__(  # noqa: PLR0913 - the composition root's parts
        self,
        *,
        users: Repository[User, UserState],
        messenger: Messenger,
        clients: ClientCache,
        sealer: Sealer,
        readers: Executor,
        now: Callable[[], Micros],
        jitter: Callable[[], float],
    ) -> None:
        """Take the parts."""
        self._users = users
        self._messenger = messenger
        self._clients = clients
        self._sealer = sealer
        self._readers = readers
        self._now = now
        self._jitter = jitter
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._waiting: dict[StreamName, asyncio.Task[None]] = {}
        self._again: set[StreamName] = set()

    def __len__(self) -> int:
        """How many people are to be read again."""
        return len(self._waiting)

    def read_again(self, stream: StreamName) -> None:
        """Begin to read somebody's name and labels; once more if that is under way already.

        Raises `TooManyUpdates`.
        """
        if stream in self._waiting:
            self._again.add(stream)
            return
        if len(self._waiting) >= WAITING:
            raise TooManyUpdates
        self._waiting[stream] = asyncio.ensure_future(self._until_done(stream))

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = list(self._waiting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_done(self, stream: StreamName) -> None:
        try:
            while True:
                self._again.discard(stream)
                async with self._slots:
                    await self._update(stream)
                if stream not in self._again:
                    return
        finally:
            del self._waiting[stream]

    async def _update(self, stream: StreamName) -> None:
        owner = _owner(stream)
        try:
            contact = (await self._users.look(stream)).state.contact
            if contact is None:
                _log.warning("HOOK_ERROR", userId=owner, error="no chat is known")
                return
            opened = self._sealer.open
            chat = await self._in_reader(opened, owner, stream, "chat", contact.chat, str)
            updated = await self._record(stream, await self._ask(chat))
        except SendError as error:
            _log.warning("HOOK_ERROR", userId=owner, error=error.code)
        except EventStoreError as error:
            _log.warning("HOOK_ERROR", userId=owner, error=type(error).__name__)
        except Exception:  # noqa: BLE001 - in the background: nobody else would hear of it
            _log.exception("HOOK_ERROR", userId=owner)
        else:
            self._clients.invalidate(stream)
            _log.info("HOOK_UPDATE", userId=owner, updated=updated)

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
            profile = Profile(name=card.name or known.name, labels=card.labels)
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


def _owner(stream: StreamName) -> str:
    return stream.partition("/")[2]
