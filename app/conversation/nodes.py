"""Which nodes live: heartbeats in the store's own table, by the store's own time.

A lease follows its node's heartbeat: a run or a delivery belongs to (node, incarnation) as long
as that incarnation beats. A restarted node is a new incarnation, so that what its predecessor
left open is an orphan at once.
"""

from __future__ import annotations

import asyncio
import os
import socket
from concurrent.futures import Executor
from pathlib import Path

import structlog

from eventstore.errors import EventStoreError
from eventstore.store import Beat, LogReader
from eventstore.types import Micros
from eventstore.writer import Writer

_log = structlog.get_logger(__name__)
SECOND = 1_000_000


def node_name(configured: str, data: Path) -> str:
    """Return the node's lasting name: as configured, or made of machine and data directory."""
    return configured or f"{socket.gethostname()}:{data.resolve().name}"


class Nodes:
    """This node's heartbeat, and what it knows of the others."""

    def __init__(  # noqa: PLR0913 - the composition root's parts
        self,
        *,
        node: str,
        release: str,
        log: LogReader,
        writer: Writer,
        readers: Executor,
        beat_seconds: float = 2.0,
        dead_seconds: float = 10.0,
    ) -> None:
        """Name this start of the node with a fresh incarnation."""
        self.node = node
        self.incarnation = os.urandom(6).hex()
        self._release = release
        self._log = log
        self._writer = writer
        self._readers = readers
        self._beat_seconds = beat_seconds
        self._dead_micros = int(dead_seconds * SECOND)
        self._started_at = log.now()
        self._known: dict[tuple[str, str], Micros] = {}

    async def beat(self) -> None:
        """Say that this node lives, and learn who else does."""
        beat = Beat(self.node, self.incarnation, self._release, self._started_at)
        await self._writer.save(beat)
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(self._readers, self._log.nodes)
        self._known = {(row.node, row.incarnation): row.beat_at for row in rows}

    async def keep_beating(self) -> None:
        """Beat until cancelled. A beat that fails is logged and tried again."""
        while True:
            try:
                await self.beat()
            except EventStoreError as error:
                _log.warning("HEARTBEAT_FAILED", error=type(error).__name__)
            await asyncio.sleep(self._beat_seconds)

    def is_mine(self, node: str, incarnation: str) -> bool:
        """Tell whether this very process holds the lease."""
        return node == self.node and incarnation == self.incarnation

    def is_alive(self, node: str, incarnation: str) -> bool:
        """Tell whether that incarnation of the node has beaten lately."""
        if self.is_mine(node, incarnation):
            return True
        beat_at = self._known.get((node, incarnation))
        return beat_at is not None and self._log.now() - beat_at < self._dead_micros
