"""Which release this is, as it is installed."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def release() -> str:
    """Return the installed release; "unknown" when run from a folder that is not installed."""
    try:
        return metadata.version("hilo")
    except metadata.PackageNotFoundError:
        return "unknown"
