"""Where the tests' PostgreSQL servers live: one home a process, made at the first use."""

from __future__ import annotations

import functools
import random
import socket

from app.demo.postgres_home import PATIENCE, Home


@functools.cache
def home() -> Home:
    """This process's home, made at the first use."""
    return Home()


def close_home() -> None:
    """Stop what still runs and remove the temporary directory, if there is one."""
    if home.cache_info().currsize:
        home().close()
        home.cache_clear()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses.

    Below the ports that the system hands out by itself, so that it is still free at a restart.
    """
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


__all__ = ["PATIENCE", "Home", "close_home", "free_port", "home"]
