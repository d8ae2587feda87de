"""Named crash points: where a fault test kills the process, as a power cut would.

`HILO_CRASH_AT=after_run_submitted:3` ends the process with SIGKILL the third time that point
is passed. Without the variable a point costs one comparison.
"""

from __future__ import annotations

import os
import signal

POINTS: tuple[str, ...] = (
    "after_message_received",
    "before_run_started",
    "after_run_started",
    "after_thread_created",
    "after_thread_started",
    "before_run_submitted",
    "after_run_submitted",
    "before_run_completed",
    "after_run_completed",
    "after_delivery_started",
    "before_message_sent",
    "after_message_sent",
    "after_run_failed",
    "after_turn_parked",
    "during_recovery",
)
"""Every point of a turn, in the order in which a turn passes them."""

ACTIVITY_POINTS: tuple[str, ...] = ("before_activity_recorded", "after_activity_recorded")
"""Those of the record that follows it some time later."""


class CrashPoints:
    """Counts how often each point is passed and kills the process at the one that was named."""

    def __init__(self, setting: str = "") -> None:
        """`setting` is `point` or `point:n` (1 is the first time). Raises `ValueError`."""
        name, _, count = setting.partition(":")
        points = POINTS + ACTIVITY_POINTS
        if name and name not in points:
            msg = f"unknown crash point {name!r}: one of {', '.join(points)}"
            raise ValueError(msg)
        self._name = name
        self._left = int(count or 1)

    def reach(self, name: str) -> None:
        """Pass a point; if it is the named one, and for the n-th time, die at once."""
        if name == self._name:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
