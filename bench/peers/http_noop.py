"""HTTP servers that do nothing, under uvicorn as `hilo serve` runs it.

`python -m bench.peers.http_noop bare|fastapi` prints its port and serves until its parent is gone.
`fastapi` is the peer; `bare` answers from the ASGI callable itself and shows what the load
generator can fire.
"""

from __future__ import annotations

import socket
import sys
import threading

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

_ANSWER = b'{"received": 1}'
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"15")]


async def bare(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body and answer."""
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _ANSWER})


def fastapi() -> FastAPI:
    """A FastAPI handler that does nothing."""
    app = FastAPI()

    @app.post("/webhooks/whapi")
    async def take() -> dict[str, int]:
        return {"received": 1}

    return app


def main(which: str) -> None:
    """Serve one of them on a free port."""
    app: ASGIApp = bare if which == "bare" else fastapi()
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
    )
    server = uvicorn.Server(config)

    def stop_with_parent() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=stop_with_parent, daemon=True).start()
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    server.run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1])
