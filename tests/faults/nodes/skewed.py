"""`python -m tests.faults.nodes.skewed SECONDS MODULE …`: a program whose clock is wrong.

The wall clock of that process, as Python reads it, is so many seconds ahead (or behind).
"""

from __future__ import annotations

import runpy
import sys
import time


def main() -> None:
    """Set the clock wrong, then be the program."""
    ahead = int(sys.argv[1])
    wall, wall_ns = time.time, time.time_ns
    time.time = lambda: wall() + ahead
    time.time_ns = lambda: wall_ns() + ahead * 1_000_000_000
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
