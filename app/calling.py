"""How this program is called here: what a person can paste to start another command of it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def called() -> str:
    """Return `hilo`, or the path by which it was started if a shell would not find that."""
    given = Path(sys.argv[0])
    if given.name != "hilo" or shutil.which("hilo") is not None:
        return "hilo"
    here = Path.cwd()
    return str(given.relative_to(here) if given.is_relative_to(here) else given)
