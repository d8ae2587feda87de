"""How long a client may keep the server waiting, and how many may be connected.

uvicorn ends connections that are idle, and no others. Here one look over all of them, now and
then, finds who has been sending a head or a body, or not reading an answer, for too long. Nothing
is done for a request and no timer is set for it: it is a request's own scope that tells whether a
connection still waits for the same one.

    head     408 and the end after `head` seconds; without a word if nothing was sent at all
    body     408 and the end after `body` seconds from the end of the head
    log      503 after `log` seconds, for a webhook on its short way that is not durable by then
    answer   the end when nothing of what was sent has been taken for `answer` seconds

Where there is no room for another connection, the one that has been waited for longest makes room:
a gateway sends its request at once, and an attacker never does. Without any, 503.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Collection
from typing import Any, Final, Literal, NamedTuple

import msgspec
import structlog

from app.api.problem import CONTENT_TYPE, Problem
from app.api.short_way import ShortWayProtocol

_log = structlog.get_logger(__name__)
Kind = Literal["head", "body", "log", "answer"]

LONGEST_LOOK: Final = 2.5
SOONEST_LOOK: Final = 0.1
"""Seconds between two looks for somebody who makes room."""
_LOOKS: Final = 4
"""In the shortest of the limits: a client is given up a quarter of it too late at most."""

_OTHER_FILES: Final = 256
"""Descriptors that the logs, databases and gateways of a node may need."""


class Limits(msgspec.Struct, frozen=True):
    """How long a server waits, in seconds, and for how many at once."""

    head: float = 10.0
    body: float = 30.0
    log: float = 3.0
    answer: float = 300.0
    connections: int = 4096


class Wait(NamedTuple):
    """What a connection waits for: `of` is the request, `left` the bytes that nobody has taken."""

    kind: Kind
    of: object
    left: int = 0

    def goes_on(self, before: Wait) -> bool:
        """Tell whether it is still the same that was waited for before."""
        return self.kind == before.kind and self.of is before.of and self.left == before.left


class Patience:
    """Looks after the connections of one server. Belongs to one event loop."""

    def __init__(self, limits: Limits) -> None:
        """Do nothing before the first connection."""
        self._limits = limits
        self._every = min(
            LONGEST_LOOK, min(limits.head, limits.body, limits.log, limits.answer) / _LOOKS
        )
        self._since: dict[PatientProtocol, tuple[Wait, float]] = {}
        self._longest_last: list[PatientProtocol] | None = None
        self._looking = False
        self._taken_in = 0.0
        self._said: Counter[str] = Counter()
        self.given_up: Counter[str] = Counter()
        """Connections that were ended, by what they were waited for; `room`: to make room;
        `refused`: at once, for lack of it."""
        self.open = 0
        """Connections at the last look."""

    def protocol(self) -> type[ShortWayProtocol]:
        """Return the protocol to give to uvicorn."""
        return type("Patient", (PatientProtocol,), {"patience": self})

    def numbers(self) -> dict[str, float]:
        """Return what `/metrics` shows."""
        kinds = ("head", "body", "answer", "room", "refused")
        counts = {f"connections_given_up_{kind}": float(self.given_up[kind]) for kind in kinds}
        return {"connections_open": float(self.open), **counts}

    def admits(
        self, newest: PatientProtocol, connections: Collection[Any], loop: asyncio.AbstractEventLoop
    ) -> bool:
        """Tell whether there is room for the newest of `connections`, or make some."""
        if not self._looking:
            self._looking = True
            loop.call_later(self._every, self._look, connections, loop)
        if len(connections) <= self._limits.connections or self._made_room():
            return True
        if loop.time() - self._taken_in > SOONEST_LOOK:  # many may have come since the last look
            self._take_in(newest, connections, loop.time())
            if self._made_room():
                return True
        self.given_up["refused"] += 1
        return False

    def _look(self, connections: Collection[Any], loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        before, self._since = self._since, {}
        self._longest_last = None
        for connection in tuple(connections):
            wait = connection.waits_for()
            if wait is None:
                continue
            known, since = before.get(connection, (wait, now))
            if not wait.goes_on(known):
                since = now
            if now - since >= getattr(self._limits, wait.kind):
                self._end(connection, wait, wait.kind)
            else:
                self._since[connection] = (wait, since)
        self.open = len(connections)
        self._say()
        self._looking = bool(connections)
        if connections:
            loop.call_later(self._every, self._look, connections, loop)

    def _take_in(self, newest: PatientProtocol, connections: Collection[Any], now: float) -> None:
        """Note who is waited for and was not at the last look; the newest has had no time yet."""
        self._taken_in = now
        self._longest_last = None
        for connection in tuple(connections):
            if connection is newest or connection in self._since:
                continue
            wait = connection.waits_for()
            if wait is not None:
                self._since[connection] = (wait, now)

    def _made_room(self) -> bool:
        """End the connection that has been waited for longest, as of the last look."""
        if self._longest_last is None:
            times = {one: told for one, told in self._since.items() if told[0].kind != "log"}
            self._longest_last = sorted(times, key=lambda one: times[one][1], reverse=True)
        while self._longest_last:
            connection = self._longest_last.pop()
            wait = connection.waits_for()
            if wait is not None and wait.goes_on(self._since[connection][0]):
                self._end(connection, wait, "room")
                return True
        return False

    def _end(self, connection: PatientProtocol, wait: Wait, why: str) -> None:
        if wait.kind == "log":  # it is the log that keeps both waiting; the door counts it
            connection.refuse_short_way()
            return
        self.given_up[why] += 1
        connection.give_up(wait)

    def _say(self) -> None:
        news = self.given_up - self._said
        if news:
            _log.warning("CONNECTIONS_GIVEN_UP", **news)
            self._said = Counter(self.given_up)


class PatientProtocol(ShortWayProtocol):
    """The server's protocol, looked after by a `Patience`."""

    patience: Patience

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection, if there is room for it."""
        super().connection_made(transport)
        if not self.patience.admits(self, self.connections, self.loop):
            self.transport.write(_NO_ROOM)
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Say that what was read is no request, and end the connection."""
        problem = Problem(
            type="/problems/unreadable-request",
            title="This cannot be read as an HTTP request",
            status=400,
            detail=msg,
        )
        self.transport.write(_raw(problem, "Bad Request"))
        self.transport.close()

    def waits_for(self) -> Wait | None:
        """Return what the client has to do next; None if it is the server's turn, or all is well.

        A webhook on its short way waits for the log: not for long, and that is the server's affair.
        Between two requests the keep-alive timer waits.
        """
        left = self.transport.get_write_buffer_size()
        if left:
            return Wait("answer", None, left)
        if self.on_short_way is not None:
            return Wait("log", self.on_short_way)
        cycle: Any = self.cycle
        body_to_come = cycle is not None and getattr(cycle, "more_body", False)
        if cycle is None or cycle.response_complete:
            if self._idle_since is not None or self.transport.is_closing():
                return None
            rest = body_to_come and cycle.scope is self.scope  # of a body that was refused
            return Wait("body" if rest else "head", self.scope)
        if body_to_come and not self.flow.read_paused:
            return Wait("body", cycle)
        return None

    def give_up(self, wait: Wait) -> None:
        """End the connection; say why, if somebody may listen and nothing else was said."""
        if wait.kind == "answer":
            self.transport.abort()
            return
        if self._in_head or (wait.kind == "body" and not self.cycle.response_started):
            self.transport.write(_TOO_SLOW)
        self.transport.close()


def room_for(connections: int) -> int:
    """Return how many connections the system lets this process have, at most `connections`.

    The soft limit of open files is raised as far as needed and allowed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < wanted:
            connections = max(soft - _OTHER_FILES, soft // 2)
            _log.warning("FEW_OPEN_FILES", open_files=soft, connections=connections)
    return connections


def _raw(problem: Problem, phrase: str, *headers: str) -> bytes:
    """Return a problem as a whole HTTP response, after which the connection ends."""
    body = problem.encode()
    lines = [
        f"HTTP/1.1 {problem.status} {phrase}",
        f"content-type: {CONTENT_TYPE}",
        f"content-length: {len(body)}",
        "connection: close",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


_TOO_SLOW: Final = _raw(
    Problem(
        type="/problems/too-slow",
        title="The request took too long to come",
        status=408,
        detail="Nothing of it is acknowledged. Send head and body at once.",
    ),
    "Request Timeout",
)
_NO_ROOM: Final = _raw(
    Problem(
        type="/problems/too-many-connections",
        title="Too many are connected",
        status=503,
        detail="Nothing is acknowledged. Try again after Retry-After seconds.",
    ),
    "Service Unavailable",
    "retry-after: 5",
)
