"""Real HTTP on loopback: a uvicorn server inside the running loop, on any free port."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Generator

from starlette.types import ASGIApp
from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.simulators.faults import ABORT


class AbortableProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with one more door: the application may drop the connection."""

    def on_message_begin(self) -> None:
        """Start a request, and give its scope the `ABORT` extension."""
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: self.transport.abort}  # type: ignore[dict-item]


class _QuietServer(Server):
    """A server that leaves signals to whoever runs the loop, and says when it listens."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self.stopping = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        # uvicorn's own wakes ten times a second, to date its headers and to count requests.
        await self.stopping.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Return a bound TCP socket; port 0 lets the system choose. Raises OSError if it is taken."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # asyncio does so for sockets that name their protocol only; accepted ones inherit it. Else
        # each answer, head and body apart, waits 40 ms for the client's delayed ACK.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, *, sock: socket.socket | None = None) -> AsyncIterator[str]:
    """Serve `app` while the context is open, and yield its URL (no trailing slash)."""
    sock = sock or listen()
    host, port = sock.getsockname()[:2]
    config = Config(
        app,
        http=AbortableProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        date_header=False,
        server_header=False,
        backlog=2048,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=1,
    )
    server = _QuietServer(config)
    running = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        ready = asyncio.create_task(server.listening.wait())
        await asyncio.wait([ready, running], return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            running.result()
        yield f"http://{host}:{port}"
    finally:
        server.stopping.set()
        await running
        sock.close()
