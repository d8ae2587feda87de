"""A process that follows or rebuilds and is killed with -9 at a step.

`python -m tests.integration.projections.dying follow|rebuild DIRECTORY STEP N`: at the Nth of the
steps of that name.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from app.projections import MODELS, Views, rebuild
from app.projections.engine import Engine
from eventstore.sqlite import SQLiteLog

WINDOW = 40


class Reaper:
    """Counts the steps of one name down and then kills, as the kernel would."""

    def __init__(self, step: str, lives: int) -> None:
        self._step, self._lives = step, lives

    def __call__(self, step: str) -> None:
        self._lives -= step == self._step
        if self._lives == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    work, directory, step, lives = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    log, views = SQLiteLog(directory / "log.db"), Views(directory / "views.db")
    reaper = Reaper(step, lives)
    if work == "rebuild":
        rebuild(views, log, MODELS, window=WINDOW, at_step=reaper)
        return
    engine = Engine(views, log, MODELS, window=WINDOW, at_step=reaper)
    engine.verify()
    while engine.advance():
        pass


if __name__ == "__main__":
    main()
