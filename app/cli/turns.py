"""`hilo turns`."""

from __future__ import annotations

from app.cli.options import group

turns = group("turns", "turns")
