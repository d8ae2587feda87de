"""`hilo users`."""

from __future__ import annotations

from app.cli.options import group

users = group("users", "users")
