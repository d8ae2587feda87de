"""A to-do list over a library that outlives it: processes that come and go.

A book here is open while its last note is "open".
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from app.aggregates.user import User
from app.aggregates.user_state import UserState
from app.conversation.agenda import Open
from app.conversation.repository import Repository
from app.conversation.todo import TodoList
from app.conversation.todo_checkpoint import TodoCheckpoint
from eventstore.types import StreamName
from tests.unit.conversation.library import (
    Library,
    Notes,
    Shelf,
)

Users = Repository[User, UserState]
BOOKS = [StreamName(f"user/{number}") for number in range(12)]


class Process:
    """One start of a to-do list, over a library that outlives it."""

    def __init__(self, library: Library, path: Path) -> None:
        self.library = library
        self.shelf: Shelf = library.shelf()
        self.checkpoint = TodoCheckpoint.owned(path)
        self.told: list[StreamName] = []
        self.todo = TodoList(
            users=cast("Users", self.shelf),
            log=library.log,
            readers=library.readers,
            checkpoint=self.checkpoint,
            tell=self._tell,
        )
        self.shelf.on_commit = lambda stream, state, *where: self.todo.committed(
            stream, cast("UserState", state), *where
        )

    def _tell(self, stream: StreamName, state: UserState) -> Open:
        self.told.append(stream)
        notes = cast("Notes", state)
        last = notes[-1] if notes else "closed"
        return "work" if last == "open" else "record" if last == "quiet" else "nothing"

    @property
    def open(self) -> set[StreamName]:
        """What the list holds."""
        return set(self.todo.streams())

    async def follow(self) -> None:
        """Follow the log to its end."""
        while await self.todo._step():
            pass


class House:
    """A library, and processes that come and go."""

    def __init__(self, folder: Path) -> None:
        self.library = Library(folder)
        self.path = folder / "todo.db"
        self._processes: list[Process] = []

    async def start(self) -> Process:
        process = Process(self.library, self.path)
        self._processes.append(process)
        await process.todo.start()
        return process

    def die(self, process: Process) -> None:
        """End a process without a word."""
        process.checkpoint.close()
        self._processes.remove(process)

    def really_open(self) -> set[StreamName]:
        """What the log says."""
        return {
            info.name
            for info in self.library.log.streams("user/")
            if self.library.texts(info.name)[-1:] == ("open",)
        }

    def close(self) -> None:
        for process in self._processes:
            process.checkpoint.close()
        self.library.close()
