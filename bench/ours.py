"""Our side of the append rows: a log, its writer and the user repository, as `hilo serve` has them.

One event loop (uvloop) stays open between the rounds; nothing is measured before it is warm.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import uvloop

from app.aggregates.user import User
from app.aggregates.user_state import UserState
from app.conversation.kinds import USERS
from app.conversation.repository import Repository
from bench.datasets import WORKING_SET, DataSet
from bench.people import EVENTS_PER_TURN, TurnMaker, open_keyring, working_set
from eventstore.sqlite import SQLiteLog
from eventstore.store import LogStore
from eventstore.writer import LogWriter, Writer
from eventstore.writer_process import ProcessWriter


class OurLog:
    """Takes bench turns through the user aggregate. A context manager."""

    def __init__(
        self,
        data: DataSet,
        *,
        log: LogStore | None = None,
        seed: int = 7,
    ) -> None:
        """Open the files of a data set that may be written to, or take `log`, which is closed.

        Who writes to the same log at the same time needs a `seed` of its own.
        """
        self.turns = 0
        """Taken so far, those of warming up included."""
        self.log: LogStore = log or SQLiteLog(data.directory / "log.db")
        self.keyring = open_keyring(data.directory)
        self.people = working_set(data.people, WORKING_SET)
        self._writer: LogWriter = (
            ProcessWriter(self.log) if isinstance(self.log, SQLiteLog) else Writer(self.log)
        )
        self._readers = ThreadPoolExecutor(4)
        self._maker = TurnMaker(self.keyring, seed=seed)
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._users: Repository[User, UserState] = Repository(
            USERS, log=self.log, writer=self._writer, readers=self._readers
        )

    def take_turns(self, turns: int, *, callers: int) -> float:
        """Take so many turns with so many callers at once; return events per second."""
        return self._runner.run(self._take_turns(turns, callers))

    async def _take_turns(self, turns: int, callers: int) -> float:
        share = max(1, turns // callers)
        work = [self._caller(caller, callers, share) for caller in range(callers)]
        start = time.perf_counter()
        await asyncio.gather(*work)
        self.turns += share * callers
        return share * callers * EVENTS_PER_TURN / (time.perf_counter() - start)

    async def _caller(self, caller: int, callers: int, turns: int) -> None:
        for turn in range(turns):
            person = self.people[(caller + turn * callers) % len(self.people)]
            await self._users.decide(person.stream, self._maker.exchange(person).record)

    def warm_up(self) -> None:
        """Load everybody of the working set, and take a turn with each."""
        self._runner.run(self._take_turns(len(self.people), min(64, len(self.people))))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._users.close())
        self._runner.close()
        self._writer.close()
        self._readers.shutdown()
        self.keyring.close()
        self.log.close()
