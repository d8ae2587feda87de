"""The process that writes a log, but one that is killed before or after its second commit."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from eventstore.errors import EventStoreError
from eventstore.sqlite import SQLiteLog
from eventstore.types import Append, Appended
from eventstore.writer_child import main

DIES = "HILO_TEST_WRITER_DIES"
_commit = SQLiteLog.append_batch


def _die(log: SQLiteLog, appends: Sequence[Append], *more: Any) -> list[Appended | EventStoreError]:
    """Commit and be killed; the first commit of the log is let through."""
    first = log.head().position == 0
    answers = _commit(log, appends, *more) if first or os.environ[DIES] == "after" else []
    if not first:
        os.kill(os.getpid(), signal.SIGKILL)
    return answers


if __name__ == "__main__":
    SQLiteLog.append_batch = _die  # type: ignore[method-assign]
    main(*sys.argv[1:])
