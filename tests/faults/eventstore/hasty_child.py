"""The process that writes a log, but one that waits for another's lock for a moment only."""

from __future__ import annotations

import sys
from functools import partial

import eventstore.sqlite
from eventstore.writer_child import main

if __name__ == "__main__":
    hasty = partial(eventstore.sqlite.connect, busy_seconds=0.05)
    eventstore.sqlite.connect = hasty
    main(*sys.argv[1:])
