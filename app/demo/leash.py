"""`python -m app.demo.leash MODULE [ARGUMENT…]`: runs a module as the program, on a leash.

When standard input ends, its other end is gone, however it died (a `kill -9` included): the
program gets SIGTERM, and is ended if it has not gone after some seconds.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import sys
import threading
import time
from typing import Final

_GRACE_SECONDS: Final = 5.0


def _watch() -> None:
    # os.read, not sys.stdin: a thread that blocks in a buffered reader holds its lock at exit.
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)


def main() -> None:
    """Run what the command line names."""
    module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    threading.Thread(target=_watch, daemon=True, name="leash").start()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
