"""`hilo projections`."""

from __future__ import annotations

from app.cli.options import group

projections = group("projections", "projections")
