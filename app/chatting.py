"""`hilo chat`: a person and the bot, from a terminal, through the simulated WhatsApp.

Each line is a message; the bot's answers appear as they come. A terminal begins with what was said
last, so that answers which came meanwhile are seen. When the input of a pipe ends, it waits for the
answers that are still missing.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import httpx2
import msgspec

from app.settings import Settings

ANSWERED: Final = 0
NO_ANSWER: Final = 1

_POLL_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.1
_MARGIN_SECONDS: Final = 15.0
_AWAY_SECONDS: Final = 60.0
"""How long a simulated WhatsApp may be away: its server starts it again, or is started again."""
_AWAY_LOOK_SECONDS: Final = 0.5
_SHOWN_BEFORE: Final = 10
_STDIN: Final = 0
_TYPING: Final = {"typing": "escribiendo…", "recording": "grabando audio…"}
_CLEAR_LINE: Final = "\r\x1b[K"


class NobodyThere(ConnectionError):
    """There is no server, or none whose WhatsApp is simulated."""


class _BotAddress(msgspec.Struct):
    bot: str
    whapi: str
    simulated: tuple[str, ...] = ()


class _Announced(msgspec.Struct):
    url: str
    bots: tuple[_BotAddress, ...]


class _Address(msgspec.Struct):
    url: str
    bot: str
    whapi: str
    simulated: tuple[str, ...]


class _Message(msgspec.Struct):
    seq: int
    body: str
    type: str
    author: str = msgspec.field(name="from")

    @property
    def shown(self) -> str:
        """What a person reads of it."""
        return self.body or f"[{self.type}]"


class _Chat(msgspec.Struct):
    messages: tuple[_Message, ...]
    last: int
    bot_presence: str | None = None


def run(settings: Settings, *, url: str | None, phone: str, name: str) -> int:
    """Chat as `phone` until the input ends; return 0, or 1 if the last message got no answer.

    `url` is the server's address; None: the one in DATA/serve.json. Raises `NobodyThere`.
    """
    address = _address_of(settings.data / "serve.json", settings.bot, url)
    try:
        return asyncio.run(_chat(settings, address, phone, name))
    except httpx2.HTTPError as error:
        msg = f"the simulated WhatsApp of {address.url} is gone ({type(error).__name__})"
        raise NobodyThere(msg) from error


def _address_of(announcement: Path, bot: str, url: str | None) -> _Address:
    """Return where the server and the bot's simulator listen. Raises `NobodyThere`."""
    try:
        announced = msgspec.json.decode(announcement.read_bytes(), type=_Announced)
    except FileNotFoundError:
        msg = f"hilo serve is not running in {announcement.parent}: start it, or give --data"
        raise NobodyThere(msg) from None
    except msgspec.DecodeError as error:
        msg = f"{announcement} cannot be read ({error}): restart hilo serve"
        raise NobodyThere(msg) from None
    meant = next((one for one in announced.bots if one.bot == bot), None)
    if meant is None:
        there = ", ".join(one.bot for one in announced.bots)
        msg = f"the server at {announced.url} does not serve the bot {bot!r}: it serves {there}"
        raise NobodyThere(msg)
    address = _Address(announced.url, bot, meant.whapi, meant.simulated)
    if url is not None and url.rstrip("/") != address.url:
        msg = (
            f"the server of {announcement.parent} listens at {address.url}, not at {url}: give "
            "the --data of the one that is meant, since it says there where its WhatsApp is"
        )
        raise NobodyThere(msg)
    if "whapi" not in address.simulated:
        msg = (
            f"the bot at {address.url} is on the real WhatsApp ({address.whapi}): write to its "
            "number from a phone. Without WHAPI_TOKEN, hilo serve simulates one"
        )
        raise NobodyThere(msg)
    try:
        httpx2.get(f"{address.url}/healthz", timeout=5).raise_for_status()
    except httpx2.HTTPError:
        msg = f"nobody answers at {address.url}, which {announcement} names: start hilo serve"
        raise NobodyThere(msg) from None
    return address


async def _chat(settings: Settings, address: _Address, phone: str, name: str) -> int:
    async with _Phone.at(address, phone, name) as me:
        said_before = await me.look()
        screen = _Screen(sys.stdin.isatty() and sys.stdout.isatty())
        screen.greet(address.url, phone, said_before)
        where = partial(_address_of, settings.data / "serve.json", settings.bot, None)
        reading = asyncio.create_task(_show(me, screen, where))
        writing = asyncio.create_task(_write(me, screen))
        try:
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            if not writing.done():  # the reader ends by an error only
                reading.result()
            writing.result()
            if screen.interactive:
                return ANSWERED  # whoever ends it has seen what there was
            patience = settings.longest_seconds + settings.run_seconds + _MARGIN_SECONDS
            return await _last_answers(me, reading, patience)
        finally:
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)
            screen.end()


async def _write(me: _Phone, screen: _Screen) -> None:
    async for line in _typed():
        if line.strip():
            try:
                await me.say(line.strip())
            except httpx2.TransportError:
                if not screen.interactive:
                    raise
                screen.remark("this was not sent: write it again in a moment")
                continue
        screen.prompt()


async def _show(me: _Phone, screen: _Screen, where: Callable[[], _Address]) -> None:
    while True:
        try:
            news = await me.news()
        except httpx2.TransportError:
            screen.remark("WhatsApp is away")
            await _until_back(me, where)
            screen.remark("WhatsApp is back, and may have forgotten the last messages")
            continue
        for message in news:
            if message.author != "customer":
                screen.message(message.author, message.shown)
        screen.presence(me.bot_presence)


async def _until_back(me: _Phone, where: Callable[[], _Address]) -> None:
    """Wait until the simulated WhatsApp is there again, maybe elsewhere.

    Raises `NobodyThere` or `TransportError` if it stays away.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _AWAY_SECONDS
    while True:
        await asyncio.sleep(_AWAY_LOOK_SECONDS)
        try:
            me.go_to(await asyncio.to_thread(where))
            return await me.find()
        except (NobodyThere, httpx2.TransportError):
            if loop.time() > deadline:
                raise


async def _last_answers(me: _Phone, reading: asyncio.Task[None], patience: float) -> int:
    """Wait until the last message is answered and the server has nothing open any more."""
    if not me.said:
        return ANSWERED
    try:
        async with asyncio.timeout(patience):
            while not reading.done():
                if me.answered > me.said and not await me.open_work():
                    return ANSWERED
                await asyncio.sleep(_LOOK_SECONDS)
            reading.result()
    except TimeoutError:
        if me.answered > me.said:  # the server is busy with others
            return ANSWERED
        sys.stderr.write(f"hilo chat: no answer within {patience:g} s\n")
    return NO_ANSWER


class _Phone:
    """The person's phone, at the simulator."""

    def __init__(
        self, whapi: httpx2.AsyncClient, server: httpx2.AsyncClient, phone: str, name: str, bot: str
    ) -> None:
        self._whapi = whapi
        self._bot = bot
        self._server = server
        self._path = f"/_sim/phone/{phone}"
        self._name = name
        self._seen = 0
        self.said = 0
        """Number in the chat of the person's newest message; 0: none yet."""
        self.answered = 0
        """Number in the chat of the bot's newest message that was shown."""
        self.bot_presence: str | None = None

    @classmethod
    @asynccontextmanager
    async def at(cls, address: _Address, phone: str, name: str) -> AsyncIterator[_Phone]:
        """Give a phone whose connections end with the context."""
        async with (
            httpx2.AsyncClient(base_url=address.whapi, timeout=_POLL_SECONDS + 10) as whapi,
            httpx2.AsyncClient(base_url=address.url, timeout=10) as server,
        ):
            yield cls(whapi, server, phone, name, address.bot)

    async def look(self) -> tuple[_Message, ...]:
        """Take what the chat shows already as seen, and return it."""
        return self._take(await self._get())

    def go_to(self, address: _Address) -> None:
        """Use the server and the WhatsApp at this address from now on."""
        self._whapi.base_url = address.whapi
        self._server.base_url = address.url

    async def find(self) -> None:
        """Go on with a chat that may have become shorter meanwhile."""
        last = (await self._get()).last
        self._seen = min(self._seen, last)
        self.said = min(self.said, last)

    async def say(self, text: str) -> None:
        """Send a message."""
        told = {"text": text, "name": self._name}
        answer = await self._whapi.post(f"{self._path}/say", json=told)
        answer.raise_for_status()
        self.said = int(answer.json()["seq"])

    async def news(self) -> tuple[_Message, ...]:
        """Return new messages, as soon as there are some or the bot's presence changes."""
        presence = self.bot_presence or ""
        query = f"?after={self._seen}&presence={presence}&timeout={_POLL_SECONDS:g}"
        return self._take(await self._get(f"/wait{query}"))

    async def open_work(self) -> bool:
        """Tell whether messages are under way to the server, or wait there for an answer."""
        queue = await self._whapi.get("/_sim/queue")
        if queue.raise_for_status().json()["pending"]:
            return True
        metrics = await self._server.get("/metrics")
        lines = metrics.raise_for_status().text.splitlines()
        return any(
            line.startswith(f'hilo_open_streams{{bot="{self._bot}"}} ') and float(line.split()[1])
            for line in lines
        )

    async def _get(self, what: str = "") -> _Chat:
        answer = await self._whapi.get(f"{self._path}{what}")
        return msgspec.json.decode(answer.raise_for_status().content, type=_Chat)

    def _take(self, chat: _Chat) -> tuple[_Message, ...]:
        self._seen = chat.last
        self.bot_presence = chat.bot_presence
        for message in chat.messages:
            if message.author == "bot":
                self.answered = message.seq
        return chat.messages


class _Screen:
    """What the terminal shows; in a pipe, the answers and nothing else."""

    def __init__(self, interactive: bool) -> None:  # noqa: FBT001 - what it is, not what to do
        self.interactive = interactive

    def greet(self, url: str, phone: str, said_before: tuple[_Message, ...]) -> None:
        """Say who talks to whom, and what was said last."""
        if not self.interactive:
            return
        self._put(f"You are {phone}, the bot is at {url}. Ctrl-D ends the chat.\n")
        if len(said_before) > _SHOWN_BEFORE:
            self._put(f"({len(said_before) - _SHOWN_BEFORE} older messages)\n")
        for message in said_before[-_SHOWN_BEFORE:]:
            author = "you" if message.author == "customer" else message.author
            self._put(f"{author}: {_clean(message.shown)}\n")
        self.prompt()

    def prompt(self) -> None:
        """Ask for the next message."""
        if self.interactive:
            self._put("> ")

    def message(self, author: str, text: str) -> None:
        """Show a message of the bot, or of a human agent."""
        clean = _clean(text)
        if not self.interactive:
            self._put(f"{clean}\n")
            return
        self._put(f"{_CLEAR_LINE}{author}: {clean}\n")
        self.prompt()

    def remark(self, text: str) -> None:
        """Say something about the chat itself."""
        if self.interactive:
            self._put(f"{_CLEAR_LINE}({text})\n")
            self.prompt()

    def end(self) -> None:
        """Leave the terminal at the beginning of a line."""
        if self.interactive:
            self._put(_CLEAR_LINE)

    def presence(self, presence: str | None) -> None:
        """Show that the bot is writing, or that it has stopped."""
        if self.interactive:
            self._put(_CLEAR_LINE + (_TYPING.get(presence or "", "") or "> "))

    def _put(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _clean(text: str) -> str:
    """Return a text without characters that a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


async def _typed() -> AsyncIterator[str]:
    """Yield the lines of standard input, whatever it is, until its end."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def hand_over(line: str | None) -> bool:
        try:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        except RuntimeError:  # the chat is over
            return False
        return True

    def read() -> None:
        # os.read, not sys.stdin: a thread that blocks in a buffered reader holds its lock at exit.
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        rest = ""
        while chunk := os.read(_STDIN, 65_536):
            *whole, rest = (rest + decoder.decode(chunk)).split("\n")
            if not all(map(hand_over, whole)):
                return
        if rest:
            hand_over(rest)
        hand_over(None)

    threading.Thread(target=read, daemon=True, name="hilo-typed").start()
    while (line := await lines.get()) is not None:
        yield line
