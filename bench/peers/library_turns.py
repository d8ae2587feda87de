"""The `eventsourcing` library's side of the append rows: the same past, people and turns."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from bench.datasets import DataSet, thousands
from bench.ours import OurLog
from bench.peers.eventsourcing_library import ROWS_A_COMMIT, Conversations, history_of
from bench.people import EVENTS_PER_TURN, Person, TurnMaker
from bench.plan import Plan


class Library:
    """An application with the same past and the same people as a data set."""

    def __init__(
        self,
        application: Conversations,
        plan: Plan,
        data: DataSet,
        ours: OurLog,
        *,
        rows_a_commit: int = ROWS_A_COMMIT,
    ) -> None:
        """Give it a past as long as the data set's; `close` closes the application."""
        self._maker = TurnMaker(ours.keyring, seed=11)
        self._application = application
        if data.events:
            plan.say(f"building the library's log of {thousands(data.events)} events …")
        past = history_of(
            application, data.people, self._maker, data.events, rows_a_commit=rows_a_commit
        )
        everybody = dict(zip((p.phone for p in data.people), past, strict=True))
        self._people: list[tuple[Person, UUID]] = [
            (person, everybody[person.phone]) for person in ours.people
        ]
        if not data.events:
            self._people = [(p, application.begin(p.pseudonym)) for p in ours.people]
        self._next = itertools.cycle(self._people)
        for _, known in self._people:
            application.repository.get(known)  # into its cache

    def take_turns(self, turns: int, *, callers: int = 1) -> float:
        """Take so many turns, shared out among so many threads; return events per second."""
        work = list(itertools.islice(self._next, turns))
        shares = [work[first::callers] for first in range(callers)]
        with ThreadPoolExecutor(callers) as threads:
            start = time.perf_counter()
            for _ in threads.map(self._take, shares):
                pass
            return turns * EVENTS_PER_TURN / (time.perf_counter() - start)

    def _take(self, share: Sequence[tuple[Person, UUID]]) -> None:
        for person, known in share:
            self._application.take_turn(known, self._maker.exchange(person))

    def close(self) -> None:
        """Close what it writes to."""
        self._application.close()
