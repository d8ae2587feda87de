"""The process that writes a log, but one that is killed before or after its second commit."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

import eventstore.writer_child
from eventstore.errors import EventStoreError
from eventstore.sqlite import SQLiteLog
from eventstore.store import Beat
from eventstore.types import Append, Appended, Snapshot

DIES = "HILO_TEST_WRITER_DIES"
"""The variable that says when."""


class DyingLog(SQLiteLog):
    """A log whose first commit goes well."""

    def append_batch(
        self,
        appends: Sequence[Append],
        snapshots: Sequence[Snapshot] = (),
        beats: Sequence[Beat] = (),
    ) -> list[Appended | EventStoreError]:
        first = self.head().position == 0
        answers: list[Appended | EventStoreError] = []
        if first or os.environ[DIES] == "after":
            answers = super().append_batch(appends, snapshots, beats)
        if not first:
            os.kill(os.getpid(), signal.SIGKILL)
        return answers


if __name__ == "__main__":
    eventstore.writer_child.SQLiteLog = DyingLog  # type: ignore[attr-defined]
    eventstore.writer_child.main(*sys.argv[1:])
