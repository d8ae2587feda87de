"""A bot behind uvicorn on a real socket, reached the short way or the ASGI way only."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import uvicorn
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.corked import CorkedProtocol
from app.api.desks import Desks
from app.api.ingress import WebhookIngress
from app.api.patience import Patience
from app.api.short_way import ShortWayProtocol
from app.bot import Bot, open_bot
from app.node import Seat, door
from app.outside import open_outside
from app.settings import load
from app.stopping import Server
from eventstore.errors import EventStoreError
from eventstore.store import Beat
from eventstore.types import Append, Appended, Snapshot
from eventstore.writer import Writer

SECRET = b"x-hilo-secret: of-the-channel\r\n"
ANA, BEA = "15550121001", "15550121002"
NOWHERE = "http://127.0.0.1:9"
PATIENCE = 20.0


class CountingIngress(WebhookIngress):
    """The door, and how often it was gone through the ASGI way."""

    asgi = 0

    def __init__(self, app: ASGIApp, desks: Desks, *, max_body: int, seconds: float) -> None:
        self.outcomes: Counter[str] = Counter()

        def count(outcome: str) -> None:
            self.outcomes[outcome] += 1

        super().__init__(app, desks, max_body=max_body, seconds=seconds, count=count)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asgi += 1
        await super().__call__(scope, receive, send)


class Gate:
    """Holds the commits of a store while it is shut; fails them while it is broken."""

    def __init__(self, bot: Bot) -> None:
        self._open = threading.Event()
        self._open.set()
        self._append_batch = bot.log.append_batch
        self.broken: EventStoreError | None = None
        assert isinstance(bot.writer, Writer)
        bot.writer._store = self  # type: ignore[assignment]

    def append_batch(
        self,
        appends: Sequence[Append],
        snapshots: Sequence[Snapshot] = (),
        beats: Sequence[Beat] = (),
    ) -> list[Appended | EventStoreError]:
        assert self._open.wait(PATIENCE)
        if self.broken is not None:
            raise self.broken
        return self._append_batch(appends, snapshots, beats)

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()


class House:
    """One bot and one server."""

    def __init__(self, bot: Bot, ingress: CountingIngress, server: Server, port: int) -> None:
        self.bot = bot
        self.ingress = ingress
        self.server = server
        self.port = port
        self.gate = Gate(bot)

    async def connect(self) -> Connection:
        return Connection(*await asyncio.open_connection("127.0.0.1", self.port))

    async def ask(self, request: bytes, answers: int = 1) -> list[bytes]:
        """Send bytes on a new connection; return the answers."""
        connection = await self.connect()
        try:
            connection.write(request)
            return [await connection.answer() for _ in range(answers)]
        finally:
            await connection.close()

    def types(self) -> list[str]:
        return [event.type for event in self.bot.log.read()]

    async def waits(self, requests: int) -> None:
        """Return when so many requests wait for the disk."""
        async with asyncio.timeout(PATIENCE):
            while len(self.server.server_state.tasks) != requests:  # noqa: ASYNC110 - uvicorn's
                await asyncio.sleep(0)


class Connection:
    """A client that reads answers byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self) -> bytes:
        """Return one answer; the time of day in it is left out."""
        async with asyncio.timeout(PATIENCE):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            body = await self._reader.readexactly(int(length[1])) if length else b""
        return re.sub(rb"date: [^\r]*", b"date: now", head) + body

    async def ended(self) -> bytes:
        """Return what comes until the server closes."""
        async with asyncio.timeout(PATIENCE):
            return await self._reader.read()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


@asynccontextmanager
async def house(
    directory: Path,
    *,
    short: bool = True,
    timeout_keep_alive: int = 5,
    patience: Patience | None = None,
    seconds: float = PATIENCE,
) -> AsyncIterator[House]:
    """Open a bot behind one protocol or the other; with `patience`, the one of `hilo serve`."""
    protocol = ShortWayProtocol if short else CorkedProtocol
    settings = load(
        data=directory / "data",
        logs=directory / "logs",
        webhook_secret=SecretStr("of-the-channel"),
        quiet_seconds=3600,
        longest_seconds=3600,
        beat_seconds=60,
        dead_seconds=600,
        log_writer="thread",
        read_models="thread",
    )
    outside = open_outside(settings, openai_url=NOWHERE, whapi_url=NOWHERE)
    async with open_bot(settings, outside) as bot:
        ingress = door(settings, [Seat.of(bot)], dict if patience is None else patience.numbers)
        counting = CountingIngress(
            ingress._app, ingress._desks, max_body=ingress._max_body, seconds=seconds
        )
        config = uvicorn.Config(
            counting,
            port=0,
            loop="none",
            http=protocol if patience is None else patience.protocol(),
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            timeout_keep_alive=timeout_keep_alive,
            timeout_graceful_shutdown=5,
        )
        server = Server(config)
        serving = asyncio.create_task(server.serve())
        async with asyncio.timeout(PATIENCE):
            while not server.started:  # noqa: ASYNC110 - uvicorn has a flag only
                await asyncio.sleep(0)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield House(bot, counting, server, port)
        finally:
            server.should_exit = True
            await serving


def text(message_id: str, phone: str = ANA, **fields: object) -> dict[str, object]:
    """A text message as Whapi shows it."""
    return {
        "id": message_id,
        "from_me": False,
        "type": "text",
        "chat_id": f"{phone}@s.whatsapp.net",
        "timestamp": 1_790_000_000,
        "source": "mobile",
        "text": {"body": "hola"},
        "from": phone,
        **fields,
    }


def body(*messages: dict[str, object], **fields: object) -> bytes:
    """An envelope."""
    event = {"type": "messages", "event": "post"}
    return msgspec.json.encode({"messages": messages, "event": event, **fields})


def request(
    content: bytes, *headers: bytes, line: bytes = b"POST /webhooks/whapi HTTP/1.1"
) -> bytes:
    """A request whose length is announced."""
    head = b"%b\r\nhost: here\r\n%bcontent-length: %d\r\n" % (line, SECRET, len(content))
    return head + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + content
