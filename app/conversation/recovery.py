"""Orphans: runs and deliveries whose process is gone, found and handed to the dispatcher.

Five seconds after the start, and then steadily: every stream with open work is looked at. What a
living node holds is left alone; what nobody holds any more is visited at once.
"""

from __future__ import annotations

from collections.abc import Callable

from app.aggregates.user import User
from app.aggregates.user_state import UserState
from app.conversation.dispatcher import Dispatcher
from app.conversation.repository import Repository
from app.conversation.todo import TodoList
from app.conversation.turn import Turns
from eventstore.types import Micros


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
            if self._dispatcher.is_running(stream):
                continue
            state = (await self._users.look(stream)).state
            orphaned = state.run is not None or (
                state.delivery is not None and self._turns.due_at(state) is None
            )
            if orphaned and not self._turns.is_held(state):
                self.found += 1
                self._dispatcher.put(stream, self._now())
