"""A network that fails when told to: a TCP proxy on 127.0.0.1 before one server.

Connections can be cut, stranded or frozen, new ones refused, and one can be cut around a chosen
request: before it arrives, or when it was carried out and its answer is on the way back.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from typing import Literal, Self
from urllib.parse import urlsplit, urlunsplit

Direction = Literal["up", "down"]
"""`up`: from the client to the server."""

_ENOUGH = 65_536
POSTGRES_IDLE = b"Z\0\0\0\x05I"
"""What PostgreSQL sends last when it has carried out a request and no transaction is open."""


@dataclass(eq=False)
class Trap:
    """Cuts the connection on which `marker` goes up, once."""

    marker: bytes
    when: Literal["before", "after"]
    answered: bytes
    sprung: threading.Event = field(default_factory=threading.Event)
    """Set before the client can see that its connection was cut."""


class _Frozen:
    """Which directions stand still."""

    def __init__(self) -> None:
        self._directions: set[Direction] = set()
        self._changed = threading.Condition()

    def freeze(self, directions: set[Direction]) -> None:
        with self._changed:
            self._directions |= directions

    def thaw(self) -> None:
        with self._changed:
            self._directions.clear()
            self._changed.notify_all()

    def wait(self, direction: Direction) -> None:
        with self._changed:
            self._changed.wait_for(lambda: direction not in self._directions)


class _Link:
    """One client's connection and the one that was made to the server for it."""

    def __init__(self, proxy: TcpProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._ends: dict[Direction, tuple[socket.socket, socket.socket]] = {
            "up": (client, server),
            "down": (server, client),
        }
        self._trap: Trap | None = None
        """The trap that waits for the answer to its request."""
        self._stranded = _Frozen()
        self._threads = [
            threading.Thread(target=self._run, args=(direction,), daemon=True)
            for direction in self._ends
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def strand(self) -> None:
        self._stranded.freeze({"up", "down"})

    def cut(self) -> None:
        """End both connections; idempotent. The threads close the sockets."""
        for end in self._ends["up"]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._stranded.thaw()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _run(self, direction: Direction) -> None:
        source, target = self._ends[direction]
        with contextlib.suppress(OSError):
            self._pump(direction, source, target)
        self.cut()
        if self._proxy.half_ended(self):
            for end in self._ends["up"]:
                end.close()

    def _pump(self, direction: Direction, source: socket.socket, target: socket.socket) -> None:
        before = b""
        while piece := source.recv(_ENOUGH):
            self._proxy.frozen.wait(direction)
            self._stranded.wait(direction)
            if direction == "up":
                trap = self._proxy.trap(before, piece)
                if trap is not None and trap.when == "before":
                    self._spring(trap)
                    return
                self._trap = trap or self._trap
                target.sendall(piece)
            elif self._trap is None:
                target.sendall(piece)
            elif _arrives(self._trap.answered, before, piece):
                self._spring(self._trap)
                return
            before = piece

    def _spring(self, trap: Trap) -> None:
        trap.sprung.set()
        self.cut()


def _arrives(marker: bytes, before: bytes, piece: bytes) -> bool:
    """Tell whether `marker` ends in this piece; it may have begun in the one before."""
    return marker in before[max(0, len(before) - len(marker) + 1) :] + piece


class TcpProxy:
    """Forwards connections to 127.0.0.1:`target` until told otherwise. A context manager."""

    def __init__(self, target: int) -> None:
        """Listen on a free port of 127.0.0.1."""
        self.target = target
        self.frozen = _Frozen()
        self._lock = threading.Lock()
        self._links: dict[_Link, int] = {}
        """The open links, and how many of their two threads still run."""
        self._traps: list[Trap] = []
        self._refuses = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def url(self, url: str) -> str:
        """The same database, seen through this proxy."""
        parts = urlsplit(url)
        user = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{self.port}", query=""))

    @property
    def connections(self) -> int:
        """How many connections are open."""
        with self._lock:
            return len(self._links)

    def cut(self) -> None:
        """Cut every connection. New ones are made as before."""
        for link in self._all():
            link.cut()

    def refuse(self) -> None:
        """Cut every connection, and each new one at once."""
        self._refuses = True
        self.cut()

    def accept(self) -> None:
        """Let new connections through again."""
        self._refuses = False

    def strand(self) -> None:
        """Let nothing more pass on today's connections, without a word; new ones work."""
        for link in self._all():
            link.strand()

    def freeze(self, *directions: Direction) -> None:
        """Hold what is sent, on old and new connections, until `resume`."""
        self.frozen.freeze(set(directions) or {"up", "down"})

    def resume(self) -> None:
        """Let everything that was held go on its way."""
        self.frozen.thaw()

    def cut_around(
        self, marker: bytes, when: Literal["before", "after"], *, answered: bytes = POSTGRES_IDLE
    ) -> Trap:
        """Cut the connection on which `marker` goes up next.

        `before`: the server never sees it. `after`: the server carries it out and says so, with
        `answered`, but that answer is lost.
        """
        trap = Trap(marker, when, answered)
        with self._lock:
            self._traps.append(trap)
        return trap

    def trap(self, before: bytes, piece: bytes) -> Trap | None:
        """Take the trap whose marker goes up with this piece."""
        with self._lock:
            for trap in self._traps:
                if _arrives(trap.marker, before, piece):
                    self._traps.remove(trap)
                    return trap
        return None

    def half_ended(self, link: _Link) -> bool:
        """Count a thread of a link that ends; tell whether it was the last."""
        with self._lock:
            self._links[link] -= 1
            if not self._links[link]:
                del self._links[link]
                return True
        return False

    def close(self) -> None:
        """Cut everything and stop listening."""
        self.frozen.thaw()
        self._refuses = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for link in self._all():
            link.cut()
            link.join()

    def _all(self) -> list[_Link]:
        with self._lock:
            return list(self._links)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self._refuses:
                    raise ConnectionRefusedError
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(self, client, server)
            with self._lock:
                self._links[link] = 2
            link.start()
