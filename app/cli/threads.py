"""`hilo threads`."""

from __future__ import annotations

from app.cli.options import group

threads = group("threads", "threads")
