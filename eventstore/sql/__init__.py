"""SQL as SQL: every statement lives in a `.sql` file, named and described there.

A file is a list of blocks, each opened by `-- name: what it does`.
"""

from __future__ import annotations

import re
from importlib.resources import files

__all__ = ["load"]

_NAME = re.compile(r"^-- (\w+): .*$", re.MULTILINE)


def load(file: str) -> dict[str, str]:
    """Return the statements of `eventstore/sql/<file>` by name."""
    text = files(__name__).joinpath(file).read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    return {name: sql.strip() for name, sql in zip(parts[::2], parts[1::2], strict=True)}
