"""`hilo chat`: a person and the bot, from a terminal, through the simulated WhatsApp.

Each line is a message; the bot's answers appear as they come. A terminal begins with what was said
last, so that answers which came meanwhile are seen. When the input ends, it waits for the answers
that are still missing; at a terminal, a second Ctrl-D leaves without them.

A server that is gone ends the chat with exit code 3: of a pipe at once, at a terminal once its
person leaves, or has not started it again in a minute.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import httpx2
import msgspec

from app.calling import called
from app.settings import Settings
from app.terminal import Screen, Typed

ANSWERED: Final = 0
NO_ANSWER: Final = 1

_POLL_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.1
_MARGIN_SECONDS: Final = 15.0
_AWAY_SECONDS: Final = 60.0
"""How long a simulated WhatsApp may be away: its server starts it again, or is started again."""
_GONE_SECONDS: Final = 1.0
"""How long a server may be gone where nobody is there to start it again."""
_AWAY_LOOK_SECONDS: Final = 0.5


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

    @property
    def line(self) -> tuple[str, str]:
        """Who wrote it, seen from the person, and what they read of it."""
        return ("you" if self.author == "customer" else self.author), self.shown


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
        raise NobodyThere(_unreachable(address, error)) from error


def _unreachable(address: _Address, error: httpx2.HTTPError) -> str:
    return (
        f"the simulated WhatsApp of {address.url} cannot be reached ({type(error).__name__}): see "
        "whether hilo serve runs, and start it again"
    )


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
        screen = Screen(sys.stdin.isatty() and sys.stdout.isatty())
        screen.greet(address.url, phone, [message.line for message in said_before])
        where = partial(_address_of, settings.data / "serve.json", settings.bot, None)
        try:
            return await _talk(settings, me, screen, where)
        except NobodyThere as error:
            msg = f"{error}{_what_is_open(me, phone)}"
            raise NobodyThere(msg) from error
        except httpx2.HTTPError as error:
            msg = f"{_unreachable(address, error)}{_what_is_open(me, phone)}"
            raise NobodyThere(msg) from error


async def _talk(
    settings: Settings, me: _Phone, screen: Screen, where: Callable[[], _Address]
) -> int:
    typed = Typed(ends=2 if screen.interactive else 1)
    reading = asyncio.create_task(_show(me, screen, where))
    writing = asyncio.create_task(_write(me, screen, typed))
    try:
        await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
        if not writing.done():  # the reader ends by an error only
            reading.result()
        writing.result()
        me.leaving = True
        if me.server_gone:
            raise NobodyThere(me.server_gone)
        if screen.interactive and not me.is_owed:
            return ANSWERED
        patience = settings.longest_seconds + settings.run_seconds + _MARGIN_SECONDS
        answers = _last_answers(me, reading, patience)
        return await (_unless_left(answers, me, screen, typed) if screen.interactive else answers)
    finally:
        for task in (reading, writing):
            task.cancel()
        await asyncio.gather(reading, writing, return_exceptions=True)
        screen.end()


def _what_is_open(me: _Phone, phone: str) -> str:
    """Say what becomes of a message that has no answer where the server has gone; "" if none is."""
    if not (me.sending or me.is_owed):
        return ""
    return (
        f". Your last message has no answer yet: if {called()} log show {phone} has it, the bot "
        "acknowledged it, and answers it once it is started again; if not, write it again"
    )


async def _write(me: _Phone, screen: Screen, typed: Typed) -> None:
    """Send what is typed until the input ends."""
    async for line in typed.until_end():
        if line.strip():
            try:
                await me.say(line.strip())
            except httpx2.TransportError:
                if not screen.interactive:
                    raise
                screen.remark(
                    f"this was not sent: {me.server_gone or 'write it again in a moment'}"
                )
                continue
        screen.prompt()


async def _unless_left(
    answers: Coroutine[None, None, int], me: _Phone, screen: Screen, typed: Typed
) -> int:
    """Wait for the last answers, until the person leaves without them; they may still write."""
    screen.remark("an answer is still to come: Ctrl-D again leaves, and the next chat shows it")
    waiting = asyncio.create_task(answers)
    writing = asyncio.create_task(_write(me, screen, typed))
    try:
        await asyncio.wait({waiting, writing}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        writing.result()
        return NO_ANSWER
    finally:
        for task in (waiting, writing):
            task.cancel()
        await asyncio.gather(waiting, writing, return_exceptions=True)


async def _show(me: _Phone, screen: Screen, where: Callable[[], _Address]) -> None:
    while True:
        try:
            news = await me.news()
        except httpx2.TransportError:
            await _until_back(me, screen, where)
            screen.remark("WhatsApp is back, and may have forgotten the last messages")
            continue
        for message in news:
            if message.author != "customer":
                screen.message(message.author, message.shown)
        screen.presence(me.bot_presence)


async def _until_back(me: _Phone, screen: Screen, where: Callable[[], _Address]) -> None:
    """Wait until the simulated WhatsApp is there again, maybe elsewhere; say who is away.

    Raises `NobodyThere` or `TransportError` if it stays away.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    said = ""
    while True:
        try:
            me.go_to(await asyncio.to_thread(where))
            me.server_gone = ""
            return await me.find()
        except (NobodyThere, httpx2.TransportError) as error:
            away = "WhatsApp is away: its server starts it again"
            patience = _AWAY_SECONDS
            if isinstance(error, NobodyThere):
                away = me.server_gone = f"the server at {me.server} is gone: start hilo serve again"
                patience = _AWAY_SECONDS if screen.interactive and not me.leaving else _GONE_SECONDS
            if loop.time() - began > patience:
                raise NobodyThere(away) from error
            if away != said:
                gone_on = "; the chat goes on then, Ctrl-D ends it" if me.server_gone else ""
                screen.remark(f"{away}{gone_on}")
                said = away
        await asyncio.sleep(_AWAY_LOOK_SECONDS)


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
        self.sending = False
        """Whether a message was given to WhatsApp, and it did not say that it took it."""
        self.server_gone = ""
        """What to say while there is no server."""
        self.leaving = False
        """Whether the person has written everything, and waits for answers alone."""

    @classmethod
    @asynccontextmanager
    async def at(cls, address: _Address, phone: str, name: str) -> AsyncIterator[_Phone]:
        """Give a phone whose connections end with the context."""
        async with (
            httpx2.AsyncClient(base_url=address.whapi, timeout=_POLL_SECONDS + 10) as whapi,
            httpx2.AsyncClient(base_url=address.url, timeout=10) as server,
        ):
            yield cls(whapi, server, phone, name, address.bot)

    @property
    def server(self) -> str:
        """The server's address."""
        return str(self._server.base_url).rstrip("/")

    @property
    def is_owed(self) -> bool:
        """Whether an answer is still to come, as far as a phone can tell."""
        return self.said > self.answered or self.bot_presence is not None

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
        self.sending = True
        answer = await self._whapi.post(f"{self._path}/say", json=told)
        answer.raise_for_status()
        self.said, self.sending = int(answer.json()["seq"]), False

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
