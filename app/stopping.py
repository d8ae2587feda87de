"""How `hilo serve` ends: what each signal does, and what it says about it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NamedTuple

import uvicorn

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Open(NamedTuple):
    """The turns that a server leaves, if it stops now."""

    running: int = 0
    """Those that are at work."""
    waiting: int = 0
    """Those that nobody is at work on yet: of people who write still, or waiting for a place."""
    shared: bool = False
    """Whether another node goes on with them."""


class Server(uvicorn.Server):
    """uvicorn's server without its signal handlers.

    They raise the signal again once the server has stopped, which would end the process before
    the turns that are running and the log are closed.
    """

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `Stop`."""
        yield

    def stop(self) -> None:
        """Stop accepting; a second signal ends open connections."""
        self.force_exit = self.should_exit
        self.should_exit = True


class Stop:
    """What a signal means: start-up is given up at its next wait; a server that listens, stops.

    Either way everything that was opened is closed in good order. A second signal lets that wait
    for no turn; the others change nothing.
    """

    def __init__(self, starting: asyncio.Task[None]) -> None:
        """Give up `starting` at a signal, until `from_now_on`."""
        self.asked = False
        self._hurried = self._over = False
        self._starting = starting
        self._server: Server | None = None
        self._turns: Callable[[], Open] = Open
        self._hurry: Callable[[], None] = _nothing
        self._leave: Callable[[], None] = _nothing

    def ask(self) -> None:
        """Stop. Called for each signal."""
        if self._hurried or self._over:
            return
        if self.asked:
            self._stop_now()
        elif self._server is not None:
            self._stop(self._server)
        else:
            say("Stopping before it listens.")
            self._starting.cancel()
        self.asked = True

    def may_hurry(self, hurry: Callable[[], None]) -> None:
        """Take what ends the waiting for turns at work."""
        self._hurry = hurry

    def from_now_on(
        self,
        server: Server,
        *,
        turns: Callable[[], Open],
        leave: Callable[[], None] = lambda: None,
    ) -> None:
        """Let signals stop `server`; one that came before, too.

        `turns` tells what is open, and `leave` ends answers that have no end of their own.
        """
        self._server, self._turns, self._leave = server, turns, leave
        if self.asked:
            self._stop(server)

    def over(self) -> None:
        """Note that everything is closed: whoever asks now has it already."""
        self._over = True

    def _stop(self, server: Server) -> None:
        say(f"Stopping: no more webhooks are taken. {_left(self._turns())}")
        self._leave()
        server.stop()

    def _stop_now(self) -> None:
        self._hurried = True
        say("Stopping now: turns at work are cancelled and go on at the next start.")
        self._hurry()
        if self._server is not None:
            self._server.stop()


def heed(ask: Callable[[], None]) -> None:
    """Call `ask` in this event loop at each SIGINT and SIGTERM, as long as the loop runs.

    A loop's own handlers would not do: it gives signals back to the system when it is closed, and
    the next one would end the process on its last steps, with -15 for an exit code.
    """
    loop = asyncio.get_running_loop()

    def told(_number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(ask)

    for number in SIGNALS:
        signal.signal(number, told)


def heed_no_more() -> None:
    """Let no SIGINT or SIGTERM do anything: everything is closed, and the process about to end.

    The interpreter takes functions away on its last steps, which would be the system's turn again.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def say(line: str) -> None:
    """Tell whoever started the server, if anybody still reads it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _left(turns: Open) -> str:
    if not turns.running:
        said = "No turn is at work."
    else:
        some = "1 turn is" if turns.running == 1 else f"{turns.running} turns are"
        said = f"{some} at work and may end first; Ctrl-C again cancels what is left."
    if not turns.waiting:
        return said
    some = "1 waits" if turns.waiting == 1 else f"{turns.waiting} wait"
    goes = "goes" if turns.waiting == 1 else "go"
    where = "another node" if turns.shared else "the next start"
    return f"{said} {some} and {goes} on at {where}."


def _nothing() -> None:
    pass
