"""Where `hilo serve` listens: its socket, and uvicorn's server behind it."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from starlette.types import ASGIApp

from app.stopping import Server


def server_of(app: ASGIApp, protocol: type[asyncio.Protocol]) -> Server:
    """Return a server of `app` that speaks `protocol`; it listens nowhere yet."""
    config = uvicorn.Config(
        app,
        loop="none",
        http=protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        proxy_headers=False,  # nobody here asks who is behind a proxy
        server_header=False,
        log_config=None,
        timeout_graceful_shutdown=15,
    )
    return Server(config)


def bound(host: str, port: int) -> socket.socket:
    """Return a listening socket: who comes waits until somebody serves.

    It listens at once, since two sockets may both have an address until one of them does. Raises
    `OSError` that names the address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        msg = (
            f"cannot listen on {host} port {port}: {error.strerror or error}. "
            "Choose another with --host and --port"
        )
        raise OSError(msg) from error
    listener.settimeout(0)
    return listener
