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
    """Return a socket that has the address, and lets nobody in yet.

    Raises `OSError` that names the address if another socket listens there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _taken(host, port, error) from error
    return listener


def listen(listener: socket.socket) -> None:
    """Let connections come. Raises `OSError` if another has begun to listen there since `bound`."""
    host, port = listener.getsockname()[:2]
    try:
        listener.listen(2048)
    except OSError as error:
        raise _taken(host, port, error) from error
    listener.settimeout(0)


def _taken(host: str, port: int, error: OSError) -> OSError:
    msg = (
        f"cannot listen on {host} port {port}: {error.strerror or error}. "
        "Choose another with --host and --port"
    )
    return OSError(msg)
