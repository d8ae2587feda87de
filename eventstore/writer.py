"""The one way into a log: concurrent callers, one transaction, one fsync.

A caller hears back only when its append is durable, or that it failed: its own conflict or
duplicate key fails it alone, a full queue (`QueueFull`) or an unwritable log
(`LogUnavailable`) says so and appends nothing.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from eventstore.errors import EventStoreError, LogUnavailable, OutcomeUnknown
from eventstore.group_commit import Done, GroupCommit, resolve
from eventstore.store import Beat, LogStore
from eventstore.types import Append, Appended, Position, Snapshot

Listener = Callable[[Position], None]
_logger = logging.getLogger(__name__)
Request = Append | Snapshot | Beat


class LogWriter(ABC):
    """What feeds appends to a log, many callers at once."""

    def __init__(self) -> None:
        """Begin without listeners."""
        self._listeners: list[Listener] = []
        self.last_failure: EventStoreError | None = None
        """Why the last transaction failed as a whole; None once one has succeeded again."""
        self.restarts = 0
        """How often what writes had ended by itself, and was started anew."""

    @property
    @abstractmethod
    def waiting(self) -> int:
        """How many requests are not durable yet."""

    @property
    @abstractmethod
    def busy_seconds(self) -> float:
        """For how long the store has not answered the transaction in hand; 0 if there is none."""

    @abstractmethod
    def send(
        self,
        request: Request,
        done: Done[Appended | None],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Queue a request now, before anything else runs; `done(answer)` is called from the loop.

        The answer is what `append` returns or raises; None for a snapshot or a heartbeat. `loop`
        is the running one, if the caller knows it. Raises `QueueFull` or `LogUnavailable`, and
        nothing is queued then.
        """

    @abstractmethod
    def close(self) -> None:
        """Commit what is waiting and stop. The store stays open. Idempotent."""

    def listen(self, listener: Listener) -> None:
        """Call `listener(last_position)` after each commit, on whatever thread: be quick."""
        self._listeners.append(listener)

    async def append(self, append: Append) -> Appended:
        """Return when the append is durable.

        Raises `Conflict`, `DuplicateKey`, `EpochMismatch` or `AppendRejected` for this append
        alone, `QueueFull` or `LogUnavailable` when it could not even be tried, and
        `OutcomeUnknown` if a broken COMMIT could not be settled. If the caller is cancelled
        the append may still be committed.
        """
        return cast("Appended", await self._ask(append))

    async def save(self, request: Snapshot | Beat) -> None:
        """Write a snapshot or a heartbeat along with whatever is committed next."""
        await self._ask(request)

    def _ask(self, request: Request) -> asyncio.Future[Appended | None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Appended | None] = loop.create_future()
        self.send(request, partial(resolve, future), loop)
        return future

    def _tell(self, last: Position) -> None:
        for listener in self._listeners:
            try:
                listener(last)
            except Exception:  # what is durable must not look failed because of a listener
                _logger.exception("a listener of the log failed at position %d", last)


class Writer(LogWriter):
    """Feeds appends to a store, in batches, from any number of tasks and threads: one thread."""

    def __init__(self, store: LogStore, *, capacity: int = 10_000, max_batch: int = 512) -> None:
        """Start the writer's thread. At most `capacity` appends wait for the disk."""
        super().__init__()
        self._store = store
        self._group: GroupCommit[Request, Appended | None] = GroupCommit(
            self._commit, name="hilo-writer", capacity=capacity, max_batch=max_batch
        )

    @property
    def waiting(self) -> int:
        """How many requests are not durable yet."""
        return self._group.waiting

    @property
    def busy_seconds(self) -> float:
        """For how long the store has not answered the transaction in hand; 0 if there is none."""
        return self._group.busy_seconds

    def send(
        self,
        request: Request,
        done: Done[Appended | None],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Queue a request for the thread."""
        self._group.send(request, done, loop)

    def append_blocking(self, append: Append) -> Appended:
        """Do what `append` does, for a thread without an event loop."""
        return cast("Appended", self._group.submit_blocking(append))

    def close(self) -> None:
        """Commit what is waiting and stop. The store stays open. Idempotent."""
        self._group.close()

    def _append(
        self, appends: Sequence[Append], snapshots: Sequence[Snapshot], beats: Sequence[Beat]
    ) -> Sequence[Appended | EventStoreError]:
        """Write them in one transaction. Raises as `LogStore.append_batch` does."""
        return self._store.append_batch(appends, snapshots, beats)

    def _commit(self, requests: Sequence[Request]) -> list[Appended | EventStoreError | None]:
        appends = [r for r in requests if isinstance(r, Append)]
        snapshots = [r for r in requests if isinstance(r, Snapshot)]
        beats = [r for r in requests if isinstance(r, Beat)]
        try:
            done = self._append(appends, snapshots, beats)
        except (LogUnavailable, OutcomeUnknown) as error:
            self.last_failure = error
            raise
        lost = next((a for a in done if isinstance(a, LogUnavailable | OutcomeUnknown)), None)
        self.last_failure = lost
        last = max((a.last_position for a in done if isinstance(a, Appended)), default=0)
        if last:
            self._tell(Position(last))
        if len(appends) == len(requests):
            return list(done)
        answers = iter(done)
        return [next(answers) if isinstance(r, Append) else lost for r in requests]
