"""`hilo serve`: one node, from its lock to its last answer.

Without keys, simulators of OpenAI and Whapi are started beside it, over real HTTP, and it says so
loudly. `DATA/serve.json` tells other processes where it listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import httpx2
import msgspec
import structlog
import uvicorn
import uvloop

from app import control, logs
from app.access import KeyTable
from app.api.patience import Limits, Patience, room_for
from app.bots import bots_file, bots_of, the_bot
from app.calling import called
from app.conversation.nodes import node_name
from app.conversation.slots import Slots
from app.listening import bound, server_of
from app.lock import exclusive, exclusive_directory
from app.node import Seat, door, open_seats
from app.release import release
from app.settings import Settings, SettingsError
from app.stopping import Open, Server, Stop, heed, heed_no_more, say
from app.stores import log_place, refuse_what_is_no_kek
from app.strays import strays
from app.worlds import simulators
from eventstore.errors import EventStoreError, LogUnavailable, StoreLocked

_log = structlog.get_logger(__name__)
LOOK_SECONDS = 2.0
"""How often the server looks whether `serve.json` is still there."""
LONGEST_PAUSE = 60.0
_Duty = Callable[[], Awaitable[None]]


class CannotServe(ConnectionError):
    """The server could not start, or not go on. The message says what to do."""


class BotAddress(msgspec.Struct, frozen=True):
    """Where one bot's OpenAI and Whapi are."""

    bot: str
    openai: str
    whapi: str
    simulated: tuple[str, ...]


class Address(msgspec.Struct, frozen=True):
    """What `DATA/serve.json` holds; `openai`, `whapi` and `simulated` are the first bot's."""

    pid: int
    url: str
    openai: str
    whapi: str
    simulated: tuple[str, ...]
    bots: tuple[BotAddress, ...]


def run(settings: Settings) -> int:
    """Serve every bot until a signal and return 0; only the bot that `settings` name, if they do.

    The process is to end then: it heeds no SIGINT or SIGTERM any more. Raises `CannotServe` with
    what to do about it, or `SettingsError`: of a start that came to nothing only the technical log
    is left then, which says why, unless the bot's log was made already.
    """
    bots = _meant(settings)
    logs.configure(None)
    with contextlib.suppress(OSError):  # said below, of the data directory
        logs.join(settings.logs_directory)  # another server may write there, and rotate it
    # Every user in memory is looked at by a full collection: rare ones keep the p99 low. Errors
    # that were caught leave some cycles; the first threshold bounds what waits to be found, to
    # some 6 MB (docs/performance.md, "What costs what").
    gc.set_threshold(50_000, 50, 1000)
    try:
        with contextlib.ExitStack() as locks:
            for bot in bots:
                directory = bot.bot_directory
                what = f"the bot's directory {directory}"
                locks.enter_context(exclusive_directory(directory, what))
            what = f"the data directory {settings.data}"
            locks.enter_context(exclusive(settings.data / "serve.lock", what))
            logs.configure(settings.logs_directory)
            for stray in strays(settings):
                _log.warning("UNKNOWN_SETTING", name=stray.name, place=stray.place, near=stray.near)
            try:
                uvloop.run(_serve(settings, bots))
            finally:
                heed_no_more()
    except SettingsError as error:
        _log.error("SERVE_REFUSED", data=str(settings.data), error=str(error))
        raise
    except (StoreLocked, LogUnavailable, OSError, EventStoreError, ValueError) as error:
        _log.error("SERVE_REFUSED", data=str(settings.data), error=_said(error))
        raise CannotServe(_said(error)) from error
    return 0


def _meant(settings: Settings) -> tuple[Settings, ...]:
    several = bots_file(settings) is not None and "bot" not in settings.model_fields_set
    return bots_of(settings) if several else (the_bot(settings),)


def _said(error: Exception) -> str:
    """Return an error's text; a plain one of the system gets what to do about it."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot use {error.filename}: {error.strerror}. Choose another with --data"
    return str(error)


async def _serve(settings: Settings, bots: Sequence[Settings]) -> None:
    starting = asyncio.current_task()
    assert starting is not None  # noqa: S101 - uvloop.run makes it a task
    stop = Stop(starting)
    heed(stop.ask)
    _log.info("SERVE_STARTING", release=release())
    try:
        await _run(settings, bots, stop)
    except asyncio.CancelledError:
        if not stop.asked:
            raise
        _log.info("SERVE_STOPPED", when="starting")
    stop.over()
    say("Stopped.")


def _echoes_to_people(settings: Settings) -> bool:
    real = bool(settings.whapi_token.get_secret_value()) and not settings.whapi_base_url
    return real and settings.openai_simulated and not settings.echo_to_real_people


async def _run(settings: Settings, bots: Sequence[Settings], stop: Stop) -> None:
    for bot in bots:
        _refuse_the_unsafe(bot)
        refuse_what_is_no_kek(bot)  # now: the keyring, which asks for it, is made after the log
    slots = Slots(settings.runs_at_once)
    with (
        contextlib.closing(bound(settings.host, settings.port)) as listener,  # before any work
        contextlib.ExitStack() as worlds,
        contextlib.closing(KeyTable(settings)) as keys,
    ):
        seats = [
            Seat(bot, worlds.enter_context(simulators(bot, _state(settings, bot))), slots)
            for bot in bots
        ]
        stop.may_hurry(lambda: _hurry(seats))
        patience = Patience(
            Limits(
                head=settings.head_seconds,
                body=settings.body_seconds,
                log=settings.webhook_seconds,
                connections=room_for(settings.connections),
            )
        )
        app = door(settings, seats, patience.numbers, keys=keys)
        async with open_seats(seats):
            await _note_opened(settings, seats)
            await _open_keys(keys)
            server = server_of(app, patience.protocol())
            await _listen(settings, listener, server, seats, stop)


async def _note_opened(settings: Settings, seats: Sequence[Seat]) -> None:
    """Record in the control log how each bot is configured. Without it, traffic goes on."""
    for seat in seats:
        if seat.running is not None:
            node = node_name(settings.node, settings.data)
            note = partial(control.opened, settings, seat.settings, node=node, release=release())
            try:
                await asyncio.to_thread(note)
            except (EventStoreError, OSError) as error:
                _log.error("CONTROL_LOG_UNAVAILABLE", bot=seat.bot, error=str(error))


async def _open_keys(keys: KeyTable) -> None:
    """Open what every read over HTTP asks first, while there is room for it. Or later, then."""
    try:
        await asyncio.to_thread(keys.open)
    except EventStoreError as error:
        _log.error("KEYS_UNAVAILABLE", error=str(error))


def _state(settings: Settings, bot: Settings) -> Path:
    """Return where a bot's simulators keep what they know."""
    directory = settings.data if bots_file(settings) is None else bot.bot_directory
    return directory / "simulated.state"


def _refuse_the_unsafe(bot: Settings) -> None:
    """Raise `SettingsError` if strangers could write to the bot, or people would get echoes."""
    if not bot.on_loopback and not bot.webhook_secret.get_secret_value():
        msg = (
            f"webhooks of the bot {bot.bot!r} on {bot.host} need a shared secret: set "
            "HILO_WEBHOOK_SECRET (with several bots: webhook_secret of each) and add it to the "
            f"channel's webhook settings as the header {bot.webhook_header}"
        )
        raise SettingsError(msg)
    if _echoes_to_people(bot):
        msg = (
            "WhatsApp would be real and OpenAI simulated: people would get echoes of what they "
            "write. Set OPENAI_API_KEY, or HILO_ECHO_TO_REAL_PEOPLE=true if that is what you want"
        )
        raise SettingsError(msg)


async def _listen(
    settings: Settings,
    listener: socket.socket,
    server: Server,
    seats: Sequence[Seat],
    stop: Stop,
) -> None:
    stop.from_now_on(
        server,
        turns=lambda: _turns(seats),
        leave=lambda: _leave(seats),
    )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{listener.getsockname()[1]}"
    beside = [
        asyncio.ensure_future(_announce(settings, server, seats, url)),
        asyncio.ensure_future(_mind_the_name(server, seats)),
        *(
            asyncio.ensure_future(
                seat.world.simulators.keep(partial(_point_webhooks, seat, url, len(seats)))
            )
            for seat in seats
            if seat.world.simulators is not None
        ),
    ]
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        with contextlib.suppress(OSError):
            (settings.data / "serve.json").unlink()
    replaced = _replaced(seats)
    if replaced is not None:
        msg = (
            f"another process serves as node {replaced!r} since: this one has stopped. Give each "
            "node a name of its own (HILO_NODE), or leave it out"
        )
        raise StoreLocked(msg)


def _replaced(seats: Sequence[Seat]) -> str | None:
    """Return the node's name if another process has taken it."""
    nodes = [seat.running.nodes for seat in seats if seat.running is not None]
    return next((one.node for one in nodes if one.replaced_by is not None), None)


async def _mind_the_name(server: Server, seats: Sequence[Seat]) -> None:
    """Stop serving once another process has taken this node's name: nothing would be answered."""
    while _replaced(seats) is None:  # noqa: ASYNC110 - each bot's heartbeat finds it out by itself
        await asyncio.sleep(1)
    server.stop()


def _turns(seats: Sequence[Seat]) -> Open:
    bots = [seat.running for seat in seats if seat.running is not None]
    return Open(
        running=sum(bot.dispatcher.running for bot in bots),
        waiting=sum(bot.turns_left for bot in bots),
        shared=any(bot.nodes.alive > 1 for bot in bots),
    )


def _hurry(seats: Sequence[Seat]) -> None:
    for seat in seats:
        seat.hurry()


def _leave(seats: Sequence[Seat]) -> None:
    for seat in seats:
        if seat.reads is not None:
            seat.reads.leaving = True


async def _announce(
    settings: Settings, server: uvicorn.Server, seats: Sequence[Seat], url: str
) -> None:
    """Say where the server listens, until cancelled: `serve.json` is written again if it is gone.

    What fails is logged and tried again, with a growing pause: the server serves meanwhile.
    """
    while not server.started:  # noqa: ASYNC110 - uvicorn has a flag, and no event to wait for
        await asyncio.sleep(0.01)
    address = _address(url, seats)
    known = partial(_make_known, settings.data / "serve.json", msgspec.json.encode(address))
    duties: list[_Duty] = [known]
    duties += [partial(_point_webhooks, seat, url, len(seats)) for seat in seats]
    failed = await _failed(duties)
    _greet(settings, address, seats)
    pause = LOOK_SECONDS
    while True:
        pause = min(2 * pause, LONGEST_PAUSE) if failed else LOOK_SECONDS
        await asyncio.sleep(pause)
        failed = await _failed(failed or [known])


def _address(url: str, seats: Sequence[Seat]) -> Address:
    bots = tuple(
        BotAddress(s.bot, s.world.openai_url, s.world.whapi_url, s.world.simulated) for s in seats
    )
    first = bots[0]
    return Address(os.getpid(), url, first.openai, first.whapi, first.simulated, bots)


async def _failed(duties: Sequence[_Duty]) -> list[_Duty]:
    """Do all of them; log what fails, and return it."""
    failed = []
    for duty in duties:
        try:
            await duty()
        except (OSError, httpx2.HTTPError) as error:
            reason = f"{type(error).__name__}: {error}"
            _log.warning("SERVE_ANNOUNCE_ERROR", error=reason)
            failed.append(duty)
    return failed


async def _make_known(path: Path, content: bytes) -> None:
    """Write the file unless it says so already. So small that the event loop does not notice."""
    if not _holds(path, content):
        write_atomically(path, content)
        _log.info("SERVE_ANNOUNCED", file=path.name)


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False


async def _point_webhooks(seat: Seat, url: str, bots: int) -> None:
    """Let a simulated Whapi deliver to the server of so many bots at `url`."""
    if "whapi" not in seat.world.simulated:
        return
    target = f"{url}/webhooks/{'whapi' if bots == 1 else f'{seat.bot}/whapi'}"
    settings = seat.settings
    headers = {settings.webhook_header: seat.secrets[0]} if seat.secrets else {}
    told: dict[str, object] = {"url": target, "headers": headers}
    if seat.channel:
        told["channel"] = seat.channel
    async with httpx2.AsyncClient(base_url=seat.world.whapi_url, timeout=10) as client:
        answer = await client.post("/_sim/webhook", json=told)
        answer.raise_for_status()


def _greet(settings: Settings, address: Address, seats: Sequence[Seat]) -> None:
    whose = "bot " if len(seats) == 1 else "the bots "
    whose += ", ".join(repr(seat.bot) for seat in seats)
    url = _for_others(address.url)
    lines = [
        f"Hilo {release()} serves {whose} at {address.url}",
        f"  webhooks  POST {url}/webhooks/whapi{_or_by_path(seats)}",
        f"  health    {url}/healthz  {url}/readyz  {url}/metrics",
    ]
    for seat in seats:
        technical = logs.file_in(settings.logs_directory).absolute()
        lines.append(f"  log       {log_place(seat.settings)}   technical log {technical}")
        if seat.running is None:
            lines.append(f"  !! the bot {seat.bot!r} is not open: {seat.reason}; it is tried again")
    for seat in seats:
        lines += _what_is_simulated(seat)
    try:
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
    except OSError as error:  # nobody reads it, or its disk is full
        _log.warning("SERVE_ANNOUNCE_ERROR", error=f"{type(error).__name__}: {error}")


def _for_others(url: str) -> str:
    """Return the URL as somebody else can use it: 0.0.0.0 and [::] are nobody's address."""
    for every_address in ("//0.0.0.0:", "//[::]:"):
        url = url.replace(every_address, "//<any address of this machine>:")
    return url


def _or_by_path(seats: Sequence[Seat]) -> str:
    return "" if len(seats) == 1 else "   or, for one bot, …/webhooks/BOT/whapi"


def _what_is_simulated(seat: Seat) -> list[str]:
    """Say loudly, for each side, whether it is the real one."""
    settings, simulated = seat.settings, seat.world.simulated
    if not simulated:
        return []
    openai = (
        "OpenAI is SIMULATED: answers are echoes. Set OPENAI_API_KEY for real ones."
        if "openai" in simulated
        else "OpenAI is REAL: answers cost money."
    )
    whapi = (
        "WhatsApp is SIMULATED: no message reaches anybody. Set WHAPI_TOKEN for the real one."
        if "whapi" in simulated
        else "WhatsApp is REAL: messages reach people."
    )
    lines = ["", f"  !! {openai}", f"  !! {whapi}"]
    if "whapi" in simulated:
        quiet = f"{settings.quiet_seconds:g} s"
        place = "" if settings.data == Path("data") else f" --data {settings.data}"
        place += "" if settings.bot == "default" else f" --bot {settings.bot}"
        lines.append(f"  Try it: {called()} chat{place}   (an answer comes after {quiet} of quiet)")
    return lines


def write_atomically(path: Path, content: bytes) -> None:
    """Write a small file so that a reader sees the old one or the new one."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
