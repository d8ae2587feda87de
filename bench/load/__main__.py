"""`python -m bench.load`: a `Load` as JSON on standard input, its `Shots` on standard output.

Raw HTTP/1.1 over kept-alive connections, one request at a time on each: a request is put together
from three pieces of bytes, an answer is looked at only as far as its length. It is warm before it
counts: the first tenth of the time is not measured.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from typing import cast
from urllib.parse import urlsplit

import msgspec
import uvloop

from bench.load.client import Load, Shots
from bench.measuring import percentile
from bench.people import CHANNEL, MESSAGES

_ID = b"################"
_OK = b"HTTP/1.1 200"
_LENGTH = b"content-length:"


class Connection(asyncio.Protocol):
    """Sends the next request when the last one is answered, until told to stop."""

    def __init__(self, next_request: Callable[[], bytes | None]) -> None:
        self.latencies: list[float] = []
        self.failed = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._next = next_request
        self._left = -1
        self._head = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Fire the first shot."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's only looks like one
        self._fire()

    def data_received(self, data: bytes) -> None:
        """Count an answer when it is whole."""
        if self._left < 0:
            data = self._head + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._head = data
                return
            self._head = b""
            head = data[:end].lower()
            at = head.find(_LENGTH)
            stop = head.find(b"\r", at)
            length = int(head[at + len(_LENGTH) : stop if stop > 0 else end])
            self._left = length - (len(data) - end - 4)
            if not data.startswith(_OK):
                self.failed += 1
        else:
            self._left -= len(data)
        if self._left == 0:
            self._left = -1
            self.latencies.append(time.perf_counter() - self._sent)
            self._fire()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the interface
        """An answer that never came is a failure."""
        if not self.done.done():
            self.failed += 1
            self.done.set_result(None)

    def _fire(self) -> None:
        request = self._next()
        if request is None:
            if not self.done.done():
                self.done.set_result(None)
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(request)


def requests_of(load: Load) -> Iterator[bytes]:
    """Every request, for ever."""
    split = urlsplit(load.url)
    ready = [
        _prepared(split.netloc, split.path, phone, MESSAGES[number % len(MESSAGES)], load.source)
        for number, phone in enumerate(load.phones)
    ]
    tag = load.tag.encode()[:6].rjust(6, b"0")
    for number, (before, after) in zip(itertools.count(), itertools.cycle(ready), strict=False):
        yield b"%b%b%010x%b" % (before, tag, number, after)


def _prepared(host: str, path: str, phone: str, text: str, source: str) -> tuple[bytes, bytes]:
    """One request, cut where the message's id goes."""
    message = {
        "id": _ID.decode() + "-gA4TrQ",
        "from_me": False,
        "type": "text",
        "chat_id": f"{phone}@s.whatsapp.net",
        "timestamp": 1_790_000_000,
        "source": source,
        "text": {"body": text},
        "from": phone,
        "from_name": "Nerea Quill",
    }
    event = {"type": "messages", "event": "post"}
    body = msgspec.json.encode({"messages": [message], "event": event, "channel_id": CHANNEL})
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: bench\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    before, after = (head.encode() + body).split(_ID)
    return before, after


async def run(load: Load) -> Shots:
    """Fire until the time is over, and let what is on its way come back."""
    split = urlsplit(load.url)
    requests = requests_of(load)
    loop = asyncio.get_running_loop()
    start = loop.time()
    end = start + load.seconds * 1.1
    left = load.requests or -1

    def next_request() -> bytes | None:
        nonlocal left
        if left == 0 or (left < 0 and loop.time() >= end):
            return None
        left -= left > 0
        return next(requests)

    connections = [Connection(next_request) for _ in range(load.connections)]
    for connection in connections:
        await loop.create_connection(
            functools.partial(_itself, connection), split.hostname or "", split.port or 80
        )
    if not load.requests:
        await asyncio.sleep(load.seconds * 0.1)
        for connection in connections:
            connection.latencies.clear()
    counted = time.perf_counter()
    await asyncio.gather(*(connection.done for connection in connections))
    seconds = time.perf_counter() - counted
    latencies = [1000 * t for connection in connections for t in connection.latencies]
    failed = sum(connection.failed for connection in connections)
    return Shots(
        answered=len(latencies) - failed,
        failed=failed,
        seconds=seconds,
        p50=percentile(latencies, 0.50),
        p99=percentile(latencies, 0.99),
        p999=percentile(latencies, 0.999),
    )


def _itself(connection: Connection) -> Connection:
    return connection


def main() -> None:
    """Read the load, run it, print what came back."""
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        shots = runner.run(run(load))
    sys.stdout.buffer.write(msgspec.json.encode(shots))


if __name__ == "__main__":
    main()
