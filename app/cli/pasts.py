"""Read models as they were, for a command: built by the worker, and gone afterwards."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.failures import FoundProblem
from app.projections import Views

if TYPE_CHECKING:
    from app.installation import Installation
    from eventstore.types import Position


@contextmanager
def past_of(here: Installation, position: Position, *models: str) -> Iterator[Views]:
    """Give read models as of a position. Raises `FoundProblem` if they cannot be built."""
    directory = here.settings.bot_directory
    with tempfile.TemporaryDirectory(prefix="hilo-past-") as place:
        path = Path(place) / "past.db"
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "app.worker", "past"),
                *("--data", str(directory.parent), "--bot", directory.name),
                *("--position", str(position), "--out", str(path)),
                *(word for name in models for word in ("--model", name)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        if ended.returncode:
            said = ended.stderr.decode(errors="replace").strip().splitlines()
            msg = said[-1] if said else f"the worker ended with {ended.returncode}"
            raise FoundProblem(msg)
        views = Views(path)
        try:
            yield views
        finally:
            views.close()
