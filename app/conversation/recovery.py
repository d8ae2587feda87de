"""Orphans: runs and deliveries whose process is gone, found and handed to the dispatcher.

Five seconds after the start, and then steadily: every stream with open work is looked at. What a
living node holds is left alone; what nobody holds any more is visited at once.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from app.aggregates.user import User
from app.aggregates.user_state import UserState
from app.conversation.dispatcher import Dispatcher
from app.conversation.repository import Repository
from app.conversation.todo import TodoList
from app.conversation.turn import Turns
from eventstore.errors import EventStoreError
from eventstore.types import Micros, StreamName

_log = structlog.get_logger(__name__)


class Recovery:
    """Looks for orphans. Belongs to one event loop."""

    def __init__(
        self,
        *,
        todo: TodoList,
        users: Repository[User, UserState],
        turns: Turns,
        dispatcher: Dispatcher,
        now: Callable[[], Micros],
    ) -> None:
        """Take the parts."""
        self._todo = todo
        self._users = users
        self._turns = turns
        self._dispatcher = dispatcher
        self._now = now
        self.found = 0

    async def look(self) -> None:
        """Look at every stream with open work, once."""
        for stream in self._todo.streams():
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
        orphaned = state.run is not None or (
            state.delivery is not None and self._turns.due_at(state) is None
        )
        if orphaned and not self._turns.is_held(state):
            self.found += 1
            self._dispatcher.put(stream, self._now())
