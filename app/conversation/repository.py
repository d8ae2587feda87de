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
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from itertools import islice, takewhile
from typing import Generic, Protocol, TypeVar
from weakref import WeakSet

import structlog

from app.caches import Figures
from eventstore.codec import Codec, Event
from eventstore.errors import (
    AppendRejected,
    Conflict,
    DuplicateKey,
    EpochMismatch,
    LogUnavailable,
    OutcomeUnknown,
    UnknownEventType,
)
from eventstore.store import LogReader
from eventstore.types import (
    Append,
    Appended,
    Epoch,
    IdempotencyKey,
    Micros,
    Recorded,
    Snapshot,
    StreamName,
    Version,
    new_append_id,
)
from eventstore.writer import LogWriter

_log = structlog.get_logger(__name__)

S = TypeVar("S")
R = TypeVar("R")
Triggered = tuple[Event, IdempotencyKey | None]
Settled = Callable[[BaseException | None], None]

SNAPSHOT_EVERY = 500
READ_PAGE = 5000
HOUR_SECONDS = 3600.0
LIFETIME = 24
"""Hours that an aggregate stays in memory unused."""

_MEASURED = 100
"""Looks at the memory that are timed when somebody asks what one takes."""


A = TypeVar("A")


class Kind(Protocol[A, S]):
    """One kind of aggregate: how its states begin, evolve, are kept and decided upon."""

    codec: Codec
    shape: bytes

    def blank(self, stream: StreamName) -> S:
        """Return the state before the first event."""

    def evolve(self, state: S, event: Event, version: Version, recorded_at: Micros) -> S:
        """Return the state after an event. Pure."""

    def revive(self, stream: StreamName, state: S, version: Version, *, read_only: bool) -> A:
        """Return the aggregate that decides upon a state."""

    def collect(self, aggregate: A) -> Sequence[Triggered]:
        """Return and forget the events that the aggregate's decisions triggered."""

    def state_of(self, aggregate: A) -> S:
        """Return the aggregate's state, its triggered events included."""

    def pack(self, state: S) -> bytes:
        """Encode a state for a snapshot."""

    def unpack(self, state: bytes) -> S:
        """Decode a snapshot's state."""


class Flight:
    """An append on its way to the disk, for those who wait for its end."""

    __slots__ = ("_error", "_landed", "_waiters")

    def __init__(self) -> None:
        self._error: BaseException | None = None
        self._landed = False
        self._waiters: list[asyncio.Future[None]] = []

    def land(self, error: BaseException | None) -> None:
        """Wake whoever waits: the append is durable (None), or has failed."""
        self._error = error
        self._landed = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def landed(self) -> BaseException | None:
        """Return, when it has ended, why it failed; None if it is durable."""
        if not self._landed:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        return self._error


class _Cell(Generic[S]):
    """One aggregate in memory: as committed, and as it will be."""

    __slots__ = (
        "committed", "deciders", "epoch", "in_flight", "live", "live_version", "read_only",
        "snapshot_version", "tail", "used", "version",
    )  # fmt: skip

    def __init__(self, committed: S, version: Version, epoch: Epoch, snapshot: Version) -> None:
        self.committed = committed
        self.version = version
        self.live = committed
        self.live_version = version
        self.epoch = epoch
        self.snapshot_version = snapshot
        self.in_flight = 0
        self.deciders = 0
        """How many decisions wait until nothing is in flight."""
        self.tail: Flight | None = None
        """The last append that is on its way to the disk."""
        self.read_only = False
        self.used = 0
        """The repository's age when it was used last."""

    def restarted(self) -> _Cell[S]:
        """Return a cell that knows what is committed and nothing of what is in flight."""
        cell = _Cell(self.committed, self.version, self.epoch, self.snapshot_version)
        cell.read_only = self.read_only
        cell.used = self.used
        return cell


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
        self._log = log
        self._writer = writer
        self._readers = readers
        self._capacity = capacity
        self._snapshot_every = snapshot_every
        self._cells: OrderedDict[StreamName, _Cell[S]] = OrderedDict()
        self._loading: dict[StreamName, asyncio.Task[_Cell[S]]] = {}
        self._outdated: WeakSet[asyncio.Task[_Cell[S]]] = WeakSet()
        self._background: set[asyncio.Task[None]] = set()
        self.on_commit: Callable[[StreamName, S, Version], None] | None = None
        """Called with state and version after each commit of this process, and each conflict."""
        self.hits = 0
        self.misses = 0
        self._evictions = self._expirations = 0
        self._age = 0
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
        self.hits += 1
        cell.used = self._age
        self._cells.move_to_end(stream)
        return True

    async def _cell(self, stream: StreamName) -> _Cell[S]:
        cell = self._cells.get(stream)
        if cell is None:
            self.misses += 1
            return await self._load(stream)
        self.hits += 1
        cell.used = self._age
        self._cells.move_to_end(stream)
        return cell

    async def _try(
        self,
        stream: StreamName,
        cell: _Cell[S],
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
            self._tell(stream, cell.committed, cell.version)
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

    def state(self, stream: StreamName) -> S | None:
        """Return the state as committed, if it is in memory; never waits."""
        cell = self._cells.get(stream)
        return None if cell is None else cell.committed

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
        cell: _Cell[S],
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
        cell: _Cell[S],
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
        cell: _Cell[S],
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
                self._cells[stream] = cell.restarted()
        else:
            self._drop(stream, cell)  # a conflict: only the log knows where it stands
        return error

    def _commit(
        self,
        stream: StreamName,
        cell: _Cell[S],
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
        self._tell(stream, state, version)

    def _tell(self, stream: StreamName, state: S, version: Version) -> None:
        if self.on_commit is not None:
            self.on_commit(stream, state, version)

    def _drop(self, stream: StreamName, cell: _Cell[S]) -> None:
        if self._cells.get(stream) is cell:
            del self._cells[stream]

    def _outdate(self, stream: StreamName) -> None:
        """Forget what is in memory, or was being read, without an event that is durable now."""
        cell = self._cells.get(stream)
        if cell is not None and cell.in_flight == 0:  # else its own appends will meet a conflict
            del self._cells[stream]
        task = self._loading.pop(stream, None)
        if task is not None:
            self._outdated.add(task)

    async def _load(self, stream: StreamName, base: _Cell[S] | None = None) -> _Cell[S]:
        # A copy: commits that are still under way change the cell while a thread reads.
        known = None if base is None else base.restarted()
        while True:
            task = self._loading.get(stream)
            if task is None:
                task = asyncio.ensure_future(self._cold_load(stream, known))
                self._loading[stream] = task
                task.add_done_callback(functools.partial(self._loaded, stream))
            cell = await asyncio.shield(task)
            if task not in self._outdated:
                break
        kept = self._cells.setdefault(stream, cell)
        kept.used = self._age
        self._cells.move_to_end(stream)
        self._evict()
        return kept

    def _loaded(self, stream: StreamName, task: asyncio.Task[_Cell[S]]) -> None:
        if self._loading.get(stream) is task:
            del self._loading[stream]

    def _evict(self) -> None:
        surplus = len(self._cells) - self._capacity
        if surplus <= 0:
            return
        idle = (name for name, cell in self._cells.items() if cell.in_flight == 0)
        for name in list(islice(idle, surplus)):
            del self._cells[name]
            self._evictions += 1

    def grow_older(self) -> None:
        """Forget what was not used for `LIFETIME` calls of this: called once an hour."""
        self._age += 1
        # The least recently used come first: nothing old is behind one that is not.
        unused = takewhile(lambda item: self._age - item[1].used > LIFETIME, self._cells.items())
        for name, cell in list(unused):
            if cell.in_flight == 0:
                del self._cells[name]
                self._expirations += 1

    def figures(self) -> Figures:
        """Return how the memory does."""
        return Figures(
            size=len(self._cells),
            limit=self._capacity,
            ttl_seconds=LIFETIME * HOUR_SECONDS,
            hits=self.hits,
            misses=self.misses,
            evictions=self._evictions,
            expirations=self._expirations,
            access_seconds=self._access_seconds(),
        )

    def _access_seconds(self) -> float:
        """Return what a look takes now: measured when somebody asks, and not by every message."""
        some = list(islice(self._cells, _MEASURED))
        begun = time.perf_counter_ns()
        for stream in some:
            self._cells.get(stream)
        return (time.perf_counter_ns() - begun) / 1e9 / len(some) if some else 0.0

    async def _cold_load(self, stream: StreamName, base: _Cell[S] | None) -> _Cell[S]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._read, stream, base)

    def _read(self, stream: StreamName, base: _Cell[S] | None) -> _Cell[S]:
        """Replay the stream, on a reader thread: from `base`, a snapshot, or the beginning."""
        epoch = self._log.head().epoch
        if base is not None and base.epoch == epoch:
            cell = base
        else:
            cell = self._from_snapshot(stream, epoch)
        while True:
            events = self._log.read_stream(stream, after=cell.version, limit=READ_PAGE)
            self._replay(cell, events)
            if len(events) < READ_PAGE:
                return cell

    def _from_snapshot(self, stream: StreamName, epoch: Epoch) -> _Cell[S]:
        snapshot = self._log.snapshot(stream)
        if snapshot is None or snapshot.shape != self._kind.shape or snapshot.epoch != epoch:
            return _Cell(self._kind.blank(stream), Version(0), epoch, Version(0))
        state = self._kind.unpack(snapshot.state)
        return _Cell(state, snapshot.version, epoch, snapshot.version)

    def _replay(self, cell: _Cell[S], events: Sequence[Recorded]) -> None:
        decode = self._kind.codec.decode
        evolve = self._kind.evolve
        state = cell.committed
        for recorded in events:
            try:
                event = decode(recorded.type, recorded.state)
            except UnknownEventType:
                # A newer release wrote it: this one must not decide for this user any more.
                cell.read_only = True
                _log.warning("UNKNOWN_EVENT_TYPE", stream=recorded.stream, type=recorded.type)
                continue
            state = evolve(state, event, recorded.version, recorded.recorded_at)
        if events:
            cell.version = cell.live_version = events[-1].version
        cell.committed = cell.live = state

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
