"""A store whose commits wait for the test: what is "still in the queue" can be looked at."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import cast

from eventstore.errors import EventStoreError
from eventstore.store import Beat, LogStore
from eventstore.types import Append, Appended, Snapshot
from eventstore.writer import Writer

PATIENCE = 30.0
"""Seconds after which a test that waits for a thread or a process gives up and fails."""


class Gate:
    """Lets commits through one by one, or for good."""

    def __init__(self) -> None:
        self._arrived = threading.Semaphore(0)
        self._pass = threading.Semaphore(0)
        self._open = False

    def wait_for_commit(self) -> None:
        """Return when a commit stands before the gate."""
        assert self._arrived.acquire(timeout=PATIENCE), "no commit was tried"

    def let_one_through(self) -> None:
        self._pass.release()

    def open(self) -> None:
        """Hold nobody from now on."""
        self._open = True
        self._pass.release()

    def enter(self) -> None:
        self._arrived.release()
        if not self._open:
            assert self._pass.acquire(timeout=PATIENCE), "the test never opened the gate"


class HeldCommits:
    """The part of a store that a writer uses, behind a gate; remembers what came in each batch."""

    def __init__(self, store: LogStore) -> None:
        self.gate = Gate()
        self.batches: list[list[Append]] = []
        self.fail_next: EventStoreError | None = None
        self._store = store

    def writer(self, *, capacity: int = 10_000) -> Writer:
        """A writer before this store."""
        return Writer(cast("LogStore", self), capacity=capacity)

    def append_batch(
        self,
        appends: Sequence[Append],
        snapshots: Sequence[Snapshot] = (),
        beats: Sequence[Beat] = (),
    ) -> list[Appended | EventStoreError]:
        self.batches.append(list(appends))
        self.gate.enter()
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            return [error] * len(appends)
        return self._store.append_batch(appends, snapshots, beats)
