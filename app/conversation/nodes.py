"""Which nodes live: heartbeats in the store's own table, by the store's own time.

A lease follows its node's heartbeat: a run or a delivery belongs to (node, incarnation) as long
as that incarnation beats. A restarted node is a new incarnation, so that what its predecessor
left open is an orphan at once.

Every node draws the same conclusions from the same rows, at the same instant: the one at which a
beat expires. A node that could not beat for so long that the others must think it dead thinks so,
too, and takes up nothing until it has beaten again.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path

import msgspec
import structlog

from app.conversation.rendezvous import rank
from eventstore.errors import EventStoreError
from eventstore.store import Beat, LogReader
from eventstore.types import Micros
from eventstore.writer import LogWriter

_log = structlog.get_logger(__name__)
SECOND = 1_000_000
MAX_SKEW = 2 * SECOND
"""A node's clock may differ so much from the store's; beyond that it is an alert."""

_SOON = 0.05


class NodeStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node says of itself with each beat; others show it and never decide by it."""

    position: int = msgspec.field(name="p", default=0)
    """Up to where its to-do list has followed the log."""
    views: int = msgspec.field(name="v", default=0)
    """Up to where its read models have."""
    running: int = msgspec.field(name="r", default=0)
    """Turns at work."""
    waiting: int = msgspec.field(name="w", default=0)
    """Turns that are not at work."""
    skew: int = msgspec.field(name="s", default=0)
    """Its clock − the store's clock, µs."""


_encode_status = msgspec.msgpack.Encoder().encode
_decode_status = msgspec.msgpack.Decoder(NodeStatus).decode


def status_of(beat: Beat) -> NodeStatus:
    """Return what a node said of itself; nothing, if a release wrote it that we do not know."""
    try:
        return _decode_status(beat.status)
    except msgspec.MsgspecError:
        return NodeStatus()


def node_name(configured: str, data: Path) -> str:
    """Return the node's lasting name: as configured, or made of machine and data directory."""
    return configured or f"{socket.gethostname()}:{data.resolve()}"


class Nodes:
    """This node's heartbeat, and what it knows of the others. Belongs to one event loop."""

    def __init__(  # noqa: PLR0913 - the composition root's parts
        self,
        *,
        node: str,
        release: str,
        log: LogReader,
        writer: LogWriter,
        readers: Executor,
        beat_seconds: float = 2.0,
        dead_seconds: float = 10.0,
        incarnation: str | None = None,
    ) -> None:
        """Name this start of the node with a fresh incarnation (or the one that is given)."""
        self.node = node
        self.incarnation = incarnation or os.urandom(6).hex()
        self.status: Callable[[], NodeStatus] = NodeStatus
        """Asked at each beat for what this node says of itself."""
        self._release = release
        self._log = log
        self._writer = writer
        self._readers = readers
        self._beat_seconds = beat_seconds
        self._dead_micros = int(dead_seconds * SECOND)
        self._started_at = log.now()
        self._beaten_at: Micros | None = None
        """The store's time just before this node's last beat that is durable."""
        self._not_dead_before = Micros(0)
        """Nobody who lived then is thought dead for an older beat."""
        self._others: dict[tuple[str, str], Micros] = {}
        """Incarnations that are not ours and thought alive, and when they last beat."""
        self._listeners: list[Callable[[], None]] = []
        self._skewed = False
        self.skew = 0
        """This machine's clock − the store's, µs, as of the last look."""
        self.failing = False
        """Whether the last beat, or the last look at the others, failed."""
        self.replaced_by: str | None = None
        """The incarnation that runs under this node's name in our place."""

    # -- what is known ----------------------------------------------------------------------------

    @property
    def alive(self) -> int:
        """How many nodes live, this one included."""
        return 1 + len(self._others)

    @property
    def may_work(self) -> bool:
        """Whether the others must think that this node lives: else it takes up nothing."""
        if self._beaten_at is None or self.replaced_by is not None:
            return False
        return self._log.now() - self._beaten_at < self._dead_micros

    def is_mine(self, node: str, incarnation: str) -> bool:
        """Tell whether this very process holds the lease."""
        return incarnation == self.incarnation and node == self.node

    def is_alive(self, node: str, incarnation: str) -> bool:
        """Tell whether that incarnation of the node has beaten lately, as far as we have seen."""
        return self.is_mine(node, incarnation) or (node, incarnation) in self._others

    def rank(self, name: str) -> int:
        """Return how many living nodes come before this one for a name: 0 if it is ours."""
        if not self._others:
            return 0
        return rank(name, self.incarnation, [other for _, other in self._others])

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener()` when the set of living nodes, or this node's own standing, changes."""
        self._listeners.append(listener)

    # -- the heartbeat ----------------------------------------------------------------------------

    async def beat(self) -> None:
        """Learn who lives, and say that this node does. Raises `EventStoreError`."""
        await self.look()
        if self.replaced_by is not None:
            return
        now = self._log.now()
        lapsed = not self.may_work
        said = _encode_status(self.status())
        beat = Beat(self.node, self.incarnation, self._release, self._started_at, status=said)
        await self._writer.save(beat)
        before, self._beaten_at = self._beaten_at, now
        if lapsed and before is not None:
            _log.warning("NODE_RETURNED", silent_seconds=(now - before) / SECOND)
            self._tell()

    async def look(self) -> None:
        """Learn who lives, and tell if that has changed. Raises `EventStoreError`."""
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(self._readers, self._log.nodes)
        self._mind_the_clock()
        if self._learn(rows):
            self._tell()

    async def keep_beating(self) -> None:
        """Beat until cancelled, and look when another's beat expires. Failures are logged."""
        loop = asyncio.get_running_loop()
        beat_at = loop.time() + self._beat_seconds
        while True:
            until_beat = beat_at - loop.time()
            await asyncio.sleep(max(_SOON, min(until_beat, self._until_expiry())))
            try:
                if loop.time() < beat_at:
                    await self.look()
                else:
                    beat_at = loop.time() + self._beat_seconds
                    await self.beat()
                self.failing = False
            except EventStoreError as error:
                self.failing = True
                fenced = not self.may_work
                _log.warning("HEARTBEAT_FAILED", error=type(error).__name__, fenced=fenced)
                await asyncio.sleep(self._beat_seconds / 2)

    # -- drawing conclusions ----------------------------------------------------------------------

    def _learn(self, rows: Sequence[Beat]) -> bool:
        """Take in what the store says; return if somebody came, died, or took our name."""
        now = self._log.now()
        if self._beaten_at is not None and not self.may_work:
            # While we could not reach the store the others may not have, either: those who lived
            # get as long again to say so, or everybody would take over everything.
            self._not_dead_before = now
        living: dict[tuple[str, str], Micros] = {}
        replaced = self.replaced_by
        for row in rows:
            who = (row.node, row.incarnation)
            if row.node == self.node:
                self._mind_our_name(row)
                continue
            seen = row.beat_at
            if who in self._others:
                seen = max(seen, self._not_dead_before)
            if now - seen < self._dead_micros:
                living[who] = seen
        lost, found = self._others.keys() - living.keys(), living.keys() - self._others.keys()
        self._others = living
        known = {row.node for row in rows}
        for node, incarnation in lost:
            if node in known:
                _log.warning("NODE_DEAD", node=node, incarnation=incarnation)
            else:
                _log.info("NODE_LEFT", node=node, incarnation=incarnation)
        for node, incarnation in found:
            _log.info("NODE_ALIVE", node=node, incarnation=incarnation)
        return bool(lost or found) or replaced != self.replaced_by

    def _mind_our_name(self, row: Beat) -> None:
        """Two processes under one name would each be the other's death: the later start stays."""
        if row.incarnation == self.incarnation or self._beaten_at is None:
            return
        later = (row.started_at, row.incarnation) > (self._started_at, self.incarnation)
        if later and self.replaced_by is None:
            self.replaced_by = row.incarnation
            _log.error("NODE_REPLACED", node=self.node, by=row.incarnation)

    def _mind_the_clock(self) -> None:
        """Say once that this machine's clock is wrong, and once that it is right again."""
        self.skew = self._log.skew()
        skewed = abs(self.skew) > MAX_SKEW
        if skewed == self._skewed:
            return
        self._skewed = skewed
        level = _log.error if skewed else _log.info
        level("CLOCK_SKEW", seconds=self.skew / SECOND, alert=skewed)

    def _until_expiry(self) -> float:
        """Seconds until the first of the others is dead unless it beats."""
        if not self._others:
            return self._beat_seconds
        return (min(self._others.values()) + self._dead_micros - self._log.now()) / SECOND

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
