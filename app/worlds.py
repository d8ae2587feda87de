"""The world of a bot: the real OpenAI and Whapi, or simulators started beside the server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2
import msgspec
import structlog

from app.settings import Settings
from app.stopping import say
from eventstore.errors import LogUnavailable

_log = structlog.get_logger(__name__)
OPENAI_URL = "https://api.openai.com/v1"
WHAPI_URL = "https://gate.whapi.cloud"
LOOK_SECONDS: Final = 0.5
"""How soon it is noticed that simulators have ended."""
LONGEST_PAUSE: Final = 30.0
"""Between two attempts to start them again."""
END_SECONDS: Final = 5.0


class Simulators:
    """OpenAI and Whapi, simulated by a child process that ends with this one.

    Should it end before, `keep` starts another one at the same addresses.
    """

    def __init__(self, bot: str, names: tuple[str, ...], state: Path) -> None:
        """Simulate those that are named, for a bot; what they know is kept in the file `state`."""
        self.bot = bot
        self.names = names
        self.urls: dict[str, str] = {}
        """Where each is reached, once they have been started."""
        self._state = state
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._over = False

    def start(self) -> None:
        """Start them; return when they listen. Raises `LogUnavailable` if they do not."""
        child = self._spawn()
        line = child.stdout.readline() if child.stdout else b""
        if not line:
            msg = "the simulators did not start: see the server's error output"
            raise LogUnavailable(msg)
        self.urls = json.loads(line)

    def end(self) -> None:
        """Let them keep what they know, and end. Nothing starts them again."""
        with self._lock:
            self._over = True
            if self._child is not None:
                _end(self._child)

    async def keep(self, again: Callable[[], Awaitable[None]]) -> None:
        """Start them whenever they have ended, and then do `again`; until cancelled.

        What they had learned since they were last stopped in good order is gone then.
        """
        while True:
            code = await self._ended()
            _log.error("SIMULATORS_LOST", bot=self.bot, exit_code=code)
            say(f"!! The simulators of the bot {self.bot!r} ended ({code}): starting them again.")
            await self._start_again(again)
            _log.warning("SIMULATORS_BACK", bot=self.bot, **self.urls)
            say("!! They are back, and know what they knew when they were last stopped.")

    async def _ended(self) -> int:
        """Return the exit code, once there is one."""
        child = self._child
        assert child is not None  # noqa: S101 - they were started
        while (code := child.poll()) is None:  # noqa: ASYNC110 - nothing tells us of its end
            await asyncio.sleep(LOOK_SECONDS)
        return code

    async def _start_again(self, again: Callable[[], Awaitable[None]]) -> None:
        pause = LOOK_SECONDS
        while True:
            try:
                if self._child is None or self._child.poll() is not None:
                    await asyncio.to_thread(self.start)
                await again()
            except (LogUnavailable, OSError, httpx2.HTTPError) as error:
                _log.error("SIMULATORS_UNAVAILABLE", bot=self.bot, error=str(error))
            else:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._over:
                msg = "the simulators are not wanted any more"
                raise LogUnavailable(msg)
            self._child = subprocess.Popen(
                [
                    *(sys.executable, "-m", "app.simulators"),
                    "all" if len(self.names) > 1 else self.names[0],
                    *("--exit-with-parent", "--state", str(self._state)),
                    *self._ports(),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # Ctrl-C is for us; the child ends when our end of its stdin does
                start_new_session=True,
            )
            return self._child

    def _ports(self) -> list[str]:
        """Return where they were reached before, if they were: others know these addresses."""
        ports = {name: str(urlsplit(url).port) for name, url in self.urls.items()}
        options = ("--port", "--whapi-port") if len(self.names) > 1 else ("--port",)
        return [
            word
            for option, name in zip(options, self.names, strict=True)
            if name in ports
            for word in (option, ports[name])
        ]


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.stdin:
        child.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=END_SECONDS)
    if child.poll() is None:
        child.kill()


class World(msgspec.Struct, frozen=True):
    """Where OpenAI and Whapi are reached, and which of them are simulated, and by what."""

    openai_url: str
    whapi_url: str
    simulated: tuple[str, ...]
    simulators: Simulators | None = None


@contextmanager
def simulators(settings: Settings, state: Path) -> Iterator[World]:
    """Start the simulators that stand in, as a child process that dies with this one.

    What they know is kept in the file `state`. Raises `LogUnavailable` if they do not start.
    """
    names = tuple(
        name
        for name, wanted in (
            ("openai", settings.openai_simulated),
            ("whapi", settings.whapi_simulated),
        )
        if wanted
    )
    openai_url = settings.openai_base_url or OPENAI_URL
    whapi_url = settings.whapi_base_url or WHAPI_URL
    if not names:
        yield World(openai_url, whapi_url, ())
        return
    state.parent.mkdir(parents=True, exist_ok=True)
    ours = Simulators(settings.bot, names, state)
    try:
        ours.start()
        urls = ours.urls
        yield World(urls.get("openai", openai_url), urls.get("whapi", whapi_url), names, ours)
    finally:
        ours.end()
