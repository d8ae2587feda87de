"""What is known of a client: from memory, else the read model, else the log, else next to nothing.

The flow never stops (A12): whatever fails on the way is logged under M003's names, and the next
source is asked. Memory is fed by every state that this process commits or reads of other nodes'
events; what it holds stays sealed.
"""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import Executor

import msgspec
import structlog
from msgspec.structs import replace

from app.aggregates.user import User
from app.aggregates.user_state import UserState
from app.caches import Expiring
from app.conversation.repository import Repository
from app.projections import Views, clients
from app.projections.clients import ClientView
from app.projections.errors import ProjectionError
from eventstore.errors import EventStoreError
from eventstore.types import StreamName

_log = structlog.get_logger(__name__)
_PREFIX = "user/"

CLIENTS = 1000
CLIENT_SECONDS = 12 * 3600.0


class Kept(msgspec.Struct, frozen=True, gc=False):
    """A client in memory, and the state that it agrees with."""

    view: ClientView
    state: UserState | None = None


class ClientCache:
    """The clients of a bot, cache first. Belongs to one event loop."""

    def __init__(
        self,
        kept: Expiring[StreamName, Kept],
        *,
        views: Views,
        users: Repository[User, UserState],
        readers: Executor,
    ) -> None:
        """Keep clients in `kept`."""
        self._kept = kept
        self._views = views
        self._users = users
        self._readers = readers

    async def get(self, stream: StreamName) -> ClientView:
        """Return what is known of a client; never fails."""
        known = self.known(stream)
        if known is not None:
            return known
        view = await self._from_read_model(stream)
        state = self._users.state(stream)  # committed while the read model was asked: it is newer
        if view is None and state is None:
            state = await self._from_log(stream)
        if view is None and (state is None or state.contact is None):
            _log.info("BD_NO_DATA", userId=_owner(stream), fallback="minimal data")
            return _minimal(stream)
        view = view or _minimal(stream)
        if state is not None:
            view = _agreeing(view, state)
        try:
            self._kept.put(stream, Kept(view, state))
        except Exception as error:  # noqa: BLE001 - whatever memory does, the answer is there
            _failed("CACHE_UPDATE_FROM_BD_ERROR", stream, error, "not kept")
        return view

    def known(self, stream: StreamName) -> ClientView | None:
        """Return what memory knows of a client; never waits, and never fails."""
        try:
            kept = self._kept.get(stream)
        except Exception as error:  # noqa: BLE001
            _failed("CACHE_ACCESS_ERROR", stream, error, "read model")
            return None
        return None if kept is None else kept.view

    def changed(self, stream: StreamName, state: UserState) -> None:
        """Feed memory with a state that is newer than what it may hold; never fails."""
        try:
            kept = self._kept.peek(stream)
            if kept is None or (kept.state is not None and _says_the_same(kept.state, state)):
                return
        except Exception as error:  # noqa: BLE001
            _failed("CACHE_NEEDS_UPDATE_ERROR", stream, error, "forgotten")
            self.invalidate(stream)
            return
        try:
            self._kept.replace(stream, Kept(_agreeing(kept.view, state), state))
        except Exception as error:  # noqa: BLE001
            _failed("CACHE_UPDATE_ERROR", stream, error, "forgotten")
            self.invalidate(stream)

    def invalidate(self, stream: StreamName) -> None:
        """Forget a client: the next who asks is told what the read model says; never fails."""
        try:
            self._kept.discard(stream)
        except Exception as error:  # noqa: BLE001
            _failed("CACHE_INVALIDATE_ERROR", stream, error, "kept until it expires")

    async def _from_read_model(self, stream: StreamName) -> ClientView | None:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._readers, clients.client, self._views, _owner(stream)
            )
        except (ProjectionError, EventStoreError, sqlite3.Error, OSError) as error:
            _failed("BD_USER_ERROR", stream, error, "log")
            return None

    async def _from_log(self, stream: StreamName) -> UserState | None:
        try:
            return (await self._users.look(stream)).state
        except (EventStoreError, OSError) as error:
            _failed("BD_THREAD_ERROR", stream, error, "minimal data")
            return None


def _says_the_same(before: UserState, after: UserState) -> bool:
    """Tell whether two states give one view; in the rule they share the parts that matter."""
    return (
        before.recorded is after.recorded
        and before.profile is after.profile
        and before.contact is after.contact
        and _thread(before) == _thread(after)
    )


def _agreeing(view: ClientView, state: UserState) -> ClientView:
    """Return the view as the read model would show it once it has followed to this state."""
    thread, recorded = _thread(state), state.recorded
    counted = 0 if state.thread is None else state.thread.tokens
    # Fewer are counted now than were recorded: the conversation was emptied since.
    current = recorded is not None and recorded.thread == thread and recorded.tokens <= counted
    return replace(
        view,
        profile=state.profile,
        chat=None if state.contact is None else state.contact.chat,
        thread_id=thread,
        last_activity=None if recorded is None else recorded.last_activity,
        thread_token_count=recorded.tokens if recorded is not None and current else 0,
    )


def _thread(state: UserState) -> str | None:
    return None if state.thread is None else state.thread.id


def _minimal(stream: StreamName) -> ClientView:
    return ClientView(_owner(stream), None, None, None, None, None, 0)


def _failed(category: str, stream: StreamName, error: BaseException, fallback: str) -> None:
    name = type(error).__name__
    _log.warning(category, userId=_owner(stream), error=name, fallback=fallback)


def _owner(stream: StreamName) -> str:
    return stream.removeprefix(_PREFIX)
