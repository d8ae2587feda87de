"""A file that is whole or not there: it grows beside the place where it will stand."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from eventstore.durable import sync_directory

_GROWING: Final = ".part"


@contextmanager
def whole_file(target: Path) -> Iterator[BinaryIO]:
    """Give a file (mode 0600) that takes `target`'s place, durably, unless something is raised.

    It grows in `target`'s directory under one of the `growing_names`, where whoever is killed
    leaves it. Raises `OSError`; what stood at `target` is then as it was.
    """
    descriptor, name = tempfile.mkstemp(
        prefix=f".{target.name}.", suffix=_GROWING, dir=target.parent
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
        sync_directory(target.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def growing_names(target: Path) -> str:
    """Return the pattern of names under which `target`, or `target.…`, grows."""
    return f".{target.name}.*{_GROWING}"
