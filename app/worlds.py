"""The world of a bot: the real OpenAI and Whapi, or simulators started beside the server."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from app.settings import Settings
from eventstore.errors import LogUnavailable

OPENAI_URL = "https://api.openai.com/v1"
WHAPI_URL = "https://gate.whapi.cloud"


class World(msgspec.Struct, frozen=True):
    """Where OpenAI and Whapi are reached, and which of them are simulated."""

    openai_url: str
    whapi_url: str
    simulated: tuple[str, ...]


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
    what = "all" if len(names) > 1 else names[0]
    state.parent.mkdir(parents=True, exist_ok=True)
    child = subprocess.Popen(
        [
            *(sys.executable, "-m", "app.simulators", what),
            *("--exit-with-parent", "--state", str(state)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us; the child ends when our end of its stdin does
    )
    try:
        line = child.stdout.readline() if child.stdout else b""
        if not line:
            msg = "the simulators did not start: see logs/technical.log"
            raise LogUnavailable(msg)
        urls = json.loads(line)
        yield World(urls.get("openai", openai_url), urls.get("whapi", whapi_url), names)
    finally:
        if child.stdin:
            child.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=5)
        if child.poll() is None:
            child.kill()
