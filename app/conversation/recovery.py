"""Orphans: what a dead process left open, found and handed to the dispatcher.

When a node comes or dies every stream with open work gets another place in the order of the nodes:
all of them are looked at again, at once. The same look now and then finds what slipped through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from app.aggregates.user import User
from app.aggregates.user_state import UserState
from app.conversation.dispatcher import Dispatcher
from app.conversation.nodes import Nodes
from app.conversation.repository import Repository
from app.conversation.todo import TodoList
from eventstore.errors import EventStoreError
from eventstore.types import Micros, StreamName

_log = structlog.get_logger(__name__)

AT_A_TIME = 100
"""Streams that are looked at before others get their turn on the event loop."""


class Recovery:
    """Looks for orphans. Belongs to one event loop."""

    def __init__(
        self,
        *,
        todo: TodoList,
        users: Repository[User, UserState],
        nodes: Nodes,
        dispatcher: Dispatcher,
        now: Callable[[], Micros],
    ) -> None:
        """Take the parts."""
        self._todo = todo
        self._users = users
        self._nodes = nodes
        self._dispatcher = dispatcher
        self._now = now
        self._looking: asyncio.Task[None] | None = None
        self._again = False
        self.found = 0
        """Runs of this process that were found waiting."""

    def look_soon(self) -> None:
        """Look at once, on the running event loop; once more if a look is under way."""
        self._again = True
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look_until_done())

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look_until_done(self) -> None:
        while self._again:
            self._again = False
            await self.look()

    async def look(self) -> None:
        """Look at every stream with open work, once."""
        for number, stream in enumerate(self._todo.streams()):
            if number % AT_A_TIME == 0:
                await asyncio.sleep(0)  # traffic goes on
            try:
                await self._look_at(stream)
            except EventStoreError as error:
                # One stream that cannot be read must not keep the others from being found.
                name = type(error).__name__
                _log.error("BD_THREAD_ERROR", operation="recovery", stream=stream, error=name)

    async def _look_at(self, stream: StreamName) -> None:
        state = (await self._users.look(stream)).state
        if self._dispatcher.is_running(stream):
            return
        # A due time can be lost with a state that memory had no room for: say it again.
        self._todo.changed(stream, state)
        run = state.run
        if run is not None and self._nodes.is_mine(run.node, run.incarnation):
            self.found += 1  # put off, since nobody could be asked about it
            self._dispatcher.put(stream, self._now())
