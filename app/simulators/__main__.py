"""`python -m app.simulators openai|whapi|all`: the simulators as a process of their own.

Prints one line of JSON with the URLs when they listen, and runs until SIGINT, SIGTERM or, with
`--exit-with-parent`, the end of its standard input.
"""

import argparse
import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

import msgspec
import uvloop

from app.simulators.openai import OpenAISimulator
from app.simulators.openai_runs import Pace
from app.simulators.openai_state import OpenAIState
from app.simulators.serving import listen, serving
from app.simulators.whapi import WhapiSimulator
from app.simulators.whapi_state import WhapiState

_SET_DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>


class Saved(msgspec.Struct):
    """The content of `--state FILE`."""

    openai: OpenAIState | None = None
    whapi: WhapiState | None = None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app.simulators", description=__doc__)
    parser.add_argument("which", choices=["openai", "whapi", "all"])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 = any free one (OpenAI's, for all)")
    parser.add_argument("--whapi-port", type=int, default=0, help="with `all`")
    parser.add_argument(
        "--state", type=Path, help="read at the start, written at the end if anything has changed"
    )
    parser.add_argument("--seed", type=int, help="repeatable ids; never with a lasting log")
    parser.add_argument("--key", help="the only OpenAI key accepted; without it, any")
    parser.add_argument("--token", help="the Whapi token required; without it, none")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="mean time of a response")
    parser.add_argument("--spread", type=float, default=0.5, help="of the latency, 0 to 1")
    parser.add_argument("--exit-with-parent", action="store_true")
    return parser.parse_args()


def _load(file: Path | None, seed: int | None) -> Saved:
    """Return what was saved; nothing if there is no such file yet. Exits if it is not readable.

    Ids are made of other random bits from now on, unless there is a `seed`: who was killed has
    given out more of them than the file knows, and the bot's log knows those.
    """
    if file is None or not file.exists():
        return Saved()
    try:
        saved = msgspec.msgpack.decode(file.read_bytes(), type=Saved)
    except msgspec.DecodeError as wrong:
        sys.exit(f"{file} is not a simulator's state ({wrong}): move it away to start afresh")
    if saved.openai is not None:
        saved.openai.after_restart()
        saved.openai.seed = OpenAIState.fresh(seed).seed
    if saved.whapi is not None:
        saved.whapi.seed = WhapiState.fresh(seed).seed
    return saved


def _save(file: Path, saved: Saved) -> None:
    """Write what the simulators know, for this user's eyes only: it is in clear."""
    beside = file.with_name(f"{file.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(msgspec.msgpack.encode(saved))
    beside.replace(file)


def _stop_at_end_of_input(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Set `stop` when standard input ends: its writer, our parent, is gone.

    Even if this process is stopped (SIGSTOP) by then; on Linux only. SIGCONT rather than SIGKILL:
    what the simulators know is saved at the end.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGCONT)

    def read() -> None:
        # os.read, not sys.stdin: a thread that blocks in a buffered reader holds its lock at exit.
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=read, daemon=True, name="parent-watch").start()


async def _run(arguments: argparse.Namespace, out: IO[str]) -> None:
    saved = _load(arguments.state, arguments.seed)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    urls: dict[str, str] = {}
    hang_up: list[Callable[[], None]] = []
    async with contextlib.AsyncExitStack() as stack:
        if arguments.which in {"openai", "all"}:
            pace = Pace(mean_ms=arguments.latency_ms, spread=arguments.spread)
            openai = OpenAISimulator(
                key=arguments.key, seed=arguments.seed, pace=pace, state=saved.openai
            )
            saved.openai = openai.state
            hang_up.append(openai.hang_up)
            sock = listen(arguments.host, arguments.port)
            urls["openai"] = await stack.enter_async_context(serving(openai, sock=sock)) + "/v1"
        if arguments.which in {"whapi", "all"}:
            whapi = WhapiSimulator(token=arguments.token, seed=arguments.seed, state=saved.whapi)
            saved.whapi = whapi.state
            hang_up.append(whapi.hang_up)
            port = arguments.whapi_port if arguments.which == "all" else arguments.port
            sock = listen(arguments.host, port)
            urls["whapi"] = await stack.enter_async_context(serving(whapi, sock=sock))
        at_first = msgspec.msgpack.encode(saved)
        out.write(msgspec.json.encode(urls).decode() + "\n")
        out.flush()
        if arguments.exit_with_parent:
            _stop_at_end_of_input(loop, stop)
        await stop.wait()
        for tell in hang_up:
            tell()
    if arguments.state is not None and msgspec.msgpack.encode(saved) != at_first:
        try:
            _save(arguments.state, saved)
        except OSError as problem:
            sys.exit(f"The simulators cannot keep what they know: {problem}")


def main() -> None:
    """Run the simulators that the command line names."""
    arguments = _arguments()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(arguments, sys.stdout))
    except OSError as problem:
        sys.exit(f"The simulators cannot start: {problem}")


if __name__ == "__main__":
    main()
