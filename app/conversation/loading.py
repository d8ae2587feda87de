"""Aggregates from the log: a snapshot, and what came after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import structlog

from app.conversation.cells import Cell
from app.conversation.kind import Kind
from eventstore.errors import UnknownEventType
from eventstore.store import LogReader
from eventstore.types import Epoch, Recorded, StreamName, Version

_log = structlog.get_logger(__name__)

S = TypeVar("S")

READ_PAGE = 5000


class Loader(Generic[S]):
    """Replays streams of one kind. Its methods are for reader threads."""

    def __init__(self, kind: Kind[Any, S], log: LogReader) -> None:
        """Read from `log`."""
        self._kind = kind
        self._log = log

    def load(self, stream: StreamName, base: Cell[S] | None) -> Cell[S]:
        """Return a stream as the log has it now, from `base`, a snapshot, or the beginning."""
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

    def _from_snapshot(self, stream: StreamName, epoch: Epoch) -> Cell[S]:
        snapshot = self._log.snapshot(stream)
        if snapshot is None or snapshot.shape != self._kind.shape or snapshot.epoch != epoch:
            return Cell(self._kind.blank(stream), Version(0), epoch, Version(0))
        state = self._kind.unpack(snapshot.state)
        return Cell(state, snapshot.version, epoch, snapshot.version)

    def _replay(self, cell: Cell[S], events: Sequence[Recorded]) -> None:
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
