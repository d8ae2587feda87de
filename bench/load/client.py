"""Starting the load generator, and what it reports."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import msgspec

CONNECTIONS: Final = 64
_PATIENCE: Final = 60.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent: webhooks with one text message each, every message id a new one."""

    url: str
    seconds: float
    tag: str
    """Makes the message ids of this load unlike those of any other."""
    connections: int = CONNECTIONS
    phones: tuple[str, ...] = ()
    """Who writes, in turn."""
    source: str = "mobile"
    """Where the messages were written; what `system` wrote is recorded and never answered."""
    requests: int = 0
    """With a number, stop after so many instead of after `seconds`."""


class Shots(msgspec.Struct, frozen=True, kw_only=True):
    """What came back. Times are milliseconds."""

    answered: int
    failed: int
    seconds: float
    p50: float
    p99: float
    p999: float

    @property
    def rate(self) -> float:
        """Answers with status 200 a second."""
        return self.answered / self.seconds


class LoadFailed(Exception):
    """Requests were refused or lost: the number would mean nothing."""


def fire(load: Load) -> Shots:
    """Run one load to its end. Raises `LoadFailed` unless every request was answered with 200."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=msgspec.json.encode(load),
        stdout=subprocess.PIPE,
        timeout=_PATIENCE + load.seconds,
        check=True,
    )
    shots = msgspec.json.decode(done.stdout, type=Shots)
    if shots.failed or not shots.answered:
        msg = f"{shots.failed} of {shots.failed + shots.answered} requests to {load.url} failed"
        raise LoadFailed(msg)
    return shots
