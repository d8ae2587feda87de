"""Aggregates in memory: decided on the event loop, fast-forwarded, never trusted past a conflict.

A fact is recorded on the state that includes events still on their way to the disk; it is
answered when they, and its own, are durable. A decision waits for them. Each event is applied
twice: provisionally with the time of the decision, and again with its `recorded_at` once it is
committed, so that the cached state is exactly what a replay gives. When an append fails, what was
recorded after it fails its version check, and is recorded again on what the log says.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar
from weakref import WeakSet

import structlog

from app.conversation.cells import Cell, Cells, Flight
from app.conversation.kind import Kind, Triggered
from app.conversation.loading import Loader
from eventstore.errors import (
    AppendRejected,
    Conflict,
    DuplicateKey,
    EpochMismatch,
    LogUnavailable,
    OutcomeUnknown,
)
from eventstore.store import LogReader
from eventstore.types import (
    Append,
    Appended,
    Epoch,
    IdempotencyKey,
    Snapshot,
    StreamName,
    Version,
    new_append_id,
)
from eventstore.writer import LogWriter

_log = structlog.get_logger(__name__)

A = TypeVar("A")
S = TypeVar("S")
R = TypeVar("R")
Settled = Callable[[BaseException | None], None]

SNAPSHOT_EVERY = 500


class Repository(Generic[A, S]):
    """The aggregates of one kind in one log. Belongs to one event loop."""

    def __init__(  # noqa: PLR0913 - the composition root's parts
        self,
        kind: Kind[A, S],
        *,
        log: LogReader,
        writer: LogWriter,
        readers: Executor,
        capacity: int = 10_000,
        snapshot_every: int = SNAPSHOT_EVERY,
    ) -> None:
        """Keep at most `capacity` aggregates, the least recently used going first."""
        self._kind = kind
        self._loader = Loader(kind, log)
        self._writer = writer
        self._readers = readers
        self._snapshot_every = snapshot_every
        self._cells: Cells[S] = Cells(capacity)
        self._loading: dict[StreamName, asyncio.Task[Cell[S]]] = {}
        self._outdated: WeakSet[asyncio.Task[Cell[S]]] = WeakSet()
        self._background: set[asyncio.Task[None]] = set()
        self.on_commit: Callable[[StreamName, S, Version, Appended | None], None] | None = None
        """Called with state and version after each commit of this process, with where that stands,
        and after each conflict, with None."""
        self.grow_older = self._cells.grow_older
        self.figures = self._cells.figures
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        """How many aggregates are in memory."""
        return len(self._cells)

    async def decide(self, stream: StreamName, command: Callable[[A], R]) -> R:
        """Run `command` on the aggregate and make what it decides durable; return its answer.

        It decides upon what is durable: an append checks the stream's version, and if one that is
        on its way failed while another process appended as many events, what was decided upon it
        would pass that check. So it waits for what is on its way.

        `command` may run several times, each time on a fresh aggregate, until its append meets
        no conflict. Raises `DuplicateKey`, `QueueFull`, `LogUnavailable`, `AppendRejected` from
        the log, and whatever `command` raises (nothing is appended then).
        """
        while True:
            cell = await self._cell(stream)
            if cell.tail is not None:
                cell.deciders += 1
                try:
                    await cell.tail.landed()
                finally:
                    cell.deciders -= 1
                continue
            done, answer = await self._try(stream, cell, command, ())
            if done:
                return answer

    async def record(
        self,
        stream: StreamName,
        command: Callable[[A], R],
        *,
        absent: tuple[IdempotencyKey, ...] = (),
    ) -> R:
        """Do what `decide` does, for facts: they do not wait for each other to reach the disk.

        A fact is recorded as it is, whatever came before it. An answer without events is given
        when all that it was based on is durable. If one of the keys `absent` is in the log the
        append fails with `DuplicateKey`.
        """
        while True:
            cell = await self._cell(stream)
            if cell.deciders and cell.tail is not None:  # or a stream of facts would starve them
                await cell.tail.landed()
                continue
            done, answer = await self._try(stream, cell, command, absent)
            if done:
                return answer

    def record_at_once(
        self, stream: StreamName, command: Callable[[A], object], done: Settled
    ) -> bool:
        """Do what `record` does without a task, if nothing but the disk has to be waited for.

        `done(error)` is called from the event loop when the append is durable (None) or has
        failed: nothing is decided again here. False: nothing was queued and `done` will not be
        called. Raises what `Writer.submit` and `command` do; nothing is queued then, either.
        """
        cell = self._cells.get(stream)
        if cell is None or (cell.deciders and cell.tail is not None):
            return False
        kind = self._kind
        aggregate = kind.revive(stream, cell.live, cell.live_version, read_only=cell.read_only)
        command(aggregate)
        triggered = kind.collect(aggregate)
        if not triggered:
            return False
        self._submit(stream, cell, triggered, kind.state_of(aggregate), done=done)
        self._cells.find(stream)
        return True

    async def _cell(self, stream: StreamName) -> Cell[S]:
        return self._cells.find(stream) or await self._load(stream)

    async def _try(
        self,
        stream: StreamName,
        cell: Cell[S],
        command: Callable[[A], R],
        absent: tuple[IdempotencyKey, ...],
    ) -> tuple[bool, R]:
        """Decide once; return whether the answer holds."""
        aggregate = self._kind.revive(
            stream, cell.live, cell.live_version, read_only=cell.read_only
        )
        answer = command(aggregate)
        triggered = self._kind.collect(aggregate)
        if triggered:
            live = self._kind.state_of(aggregate)
            lost = await self._append(stream, cell, triggered, live, absent)
        else:
            lost = None if cell.tail is None else await cell.tail.landed()
        if isinstance(lost, Conflict | EpochMismatch):
            cell = await self._load(stream, base=cell)
            # What others appended is news here, too.
            self._tell(stream, cell.committed, cell.version, None)
            return False, answer
        if lost is not None:
            if triggered:
                raise lost
            return False, answer  # what we waited for failed: its own caller hears why
        return True, answer

    async def look(self, stream: StreamName) -> A:
        """Return the aggregate as committed now in memory; decisions on it go nowhere."""
        cell = self._cells.get(stream) or await self._load(stream)
        return self._kind.revive(stream, cell.committed, cell.version, read_only=cell.read_only)

    def peek(self, stream: StreamName) -> A | None:
        """Return what `look` would, if it is in memory; never waits."""
        cell = self._cells.get(stream)
        if cell is None:
            return None
        return self._kind.revive(stream, cell.committed, cell.version, read_only=cell.read_only)

    def is_read_only(self, stream: StreamName) -> bool:
        """Tell whether what is in memory of a stream holds events of a newer release."""
        cell = self._cells.get(stream)
        return cell is not None and cell.read_only

    def state(self, stream: StreamName) -> S | None:
        """Return the state as committed, if it is in memory; never waits."""
        cell = self._cells.get(stream)
        return None if cell is None else cell.committed

    async def landed(self, stream: StreamName) -> None:
        """Wait for our own appends to a stream that are on their way now."""
        cell = self._cells.get(stream)
        if cell is not None and cell.tail is not None:
            await cell.tail.landed()

    async def refresh(self, stream: StreamName) -> None:
        """Fast-forward what is cached: another process may have appended."""
        cell = self._cells.get(stream)
        if cell is not None and cell.in_flight == 0:
            self._drop(stream, cell)
            await self._load(stream, base=cell)

    async def close(self) -> None:
        """Wait for the snapshots under way."""
        if self._background:
            await asyncio.gather(*self._background, return_exceptions=True)

    async def _append(
        self,
        stream: StreamName,
        cell: Cell[S],
        triggered: Sequence[Triggered],
        live: S,
        absent: tuple[IdempotencyKey, ...],
    ) -> BaseException | None:
        """Append; return, when that is settled, why it failed."""
        waiter: asyncio.Future[BaseException | None]
        waiter = asyncio.get_running_loop().create_future()

        def done(error: BaseException | None) -> None:
            if not waiter.done():  # our caller may have gone away: the append went on without it
                waiter.set_result(error)

        self._submit(stream, cell, triggered, live, absent=absent, done=done)
        return await waiter

    def _submit(  # noqa: PLR0913 - one append, and who waits for it
        self,
        stream: StreamName,
        cell: Cell[S],
        triggered: Sequence[Triggered],
        live: S,
        *,
        done: Settled,
        absent: tuple[IdempotencyKey, ...] = (),
    ) -> None:
        """Queue the append: `live` is the cell's live state until `done(error)` is called."""
        encode = self._kind.codec.encode
        append = Append(
            stream,
            Version(cell.live_version),
            tuple([encode(event, key) for event, key in triggered]),
            cell.epoch,
            new_append_id(),
            absent,
        )
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        flight = Flight()

        def settle(answer: Appended | Exception | None) -> None:
            error = self._settled(stream, cell, triggered, answer, flight)
            flight.land(error)  # whoever waits for it finds the cell settled
            done(error)

        self._writer.send(append, settle, self._loop)
        cell.live = live
        cell.live_version = Version(cell.live_version + len(triggered))
        cell.in_flight += 1
        cell.tail = flight

    def _settled(
        self,
        stream: StreamName,
        cell: Cell[S],
        triggered: Sequence[Triggered],
        answer: Appended | Exception | None,
        flight: Flight,
    ) -> BaseException | None:
        """Bring the cell up to date with an append that has been answered; return its error."""
        if isinstance(answer, Appended):
            self._commit(stream, cell, triggered, answer, flight)
            return None
        error = answer or OutcomeUnknown("the log's writer has answered something else")
        if isinstance(error, DuplicateKey | AppendRejected | LogUnavailable):
            # Nothing was appended: what was decided after it will fail, and be decided again.
            if self._cells.get(stream) is cell:
                cell.dropped = True
                self._cells[stream] = cell.restarted()
        else:
            self._drop(stream, cell)  # a conflict: only the log knows where it stands
        return error

    def _commit(
        self,
        stream: StreamName,
        cell: Cell[S],
        triggered: Sequence[Triggered],
        appended: Appended,
        flight: Flight,
    ) -> None:
        cell.in_flight -= 1
        if cell.tail is flight:
            cell.tail = None
        if cell.version + len(triggered) != appended.version:
            # What was before it failed, and another process appended as many events in its place.
            self._drop(stream, cell)
            self._outdate(stream)
            return
        evolve = self._kind.evolve
        state = cell.committed
        version = cell.version
        for event, _ in triggered:
            version = Version(version + 1)
            state = evolve(state, event, version, appended.recorded_at)
        cell.committed = state
        cell.version = version
        if cell.tail is None:
            cell.live = state
        if self._cells.get(stream) is not cell:
            self._outdate(stream)  # what took its place was read before this was durable
            return
        if not cell.read_only and version - cell.snapshot_version >= self._snapshot_every:
            cell.snapshot_version = version
            self._start(self._save_snapshot(stream, state, version, cell.epoch))
        self._tell(stream, state, version, appended)

    def _tell(
        self, stream: StreamName, state: S, version: Version, appended: Appended | None
    ) -> None:
        if self.on_commit is not None:
            self.on_commit(stream, state, version, appended)

    def _drop(self, stream: StreamName, cell: Cell[S]) -> None:
        if self._cells.get(stream) is cell:
            self._cells.drop(stream)

    def _outdate(self, stream: StreamName) -> None:
        """Forget what is in memory, or was being read, without an event that is durable now."""
        cell = self._cells.get(stream)
        if cell is not None and cell.in_flight == 0:  # else its own appends will meet a conflict
            self._cells.drop(stream)
        task = self._loading.pop(stream, None)
        if task is not None:
            self._outdated.add(task)

    async def _load(self, stream: StreamName, base: Cell[S] | None = None) -> Cell[S]:
        while True:
            task = self._loading.get(stream)
            if task is None:
                # A copy: commits that are still under way change the cell while a thread reads.
                known = None if base is None else base.restarted()
                task = asyncio.ensure_future(self._cold_load(stream, known))
                self._loading[stream] = task
                task.add_done_callback(functools.partial(self._loaded, stream))
            cell = await asyncio.shield(task)
            # Of several who waited for it the first may have found it behind the log already.
            if task not in self._outdated and not cell.dropped:
                break
            if self._loading.get(stream) is task:
                del self._loading[stream]
        return self._cells.keep(stream, cell)

    def _loaded(self, stream: StreamName, task: asyncio.Task[Cell[S]]) -> None:
        if self._loading.get(stream) is task:
            del self._loading[stream]

    async def _cold_load(self, stream: StreamName, base: Cell[S] | None) -> Cell[S]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._loader.load, stream, base)

    async def _save_snapshot(
        self, stream: StreamName, state: S, version: Version, epoch: Epoch
    ) -> None:
        packed = self._kind.pack(state)
        await self._writer.save(Snapshot(stream, version, epoch, self._kind.shape, packed))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.warning("SNAPSHOT_FAILED", error=type(task.exception()).__name__)
