"""How `hilo serve` ends: what each signal does, and what it says about it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn


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

    Either way everything that was opened is closed in good order.
    """

    def __init__(self, starting: asyncio.Task[None]) -> None:
        """Give up `starting` at a signal, until `from_now_on`."""
        self.asked = False
        self._starting = starting
        self._server: Server | None = None
        self._running: Callable[[], int] = int
        self._hurry: Callable[[], None] = _nothing
        self._leave: Callable[[], None] = _nothing

    def ask(self) -> None:
        """Stop. Called for each signal."""
        if self._server is not None:
            self._stop(self._server)
        elif not self.asked:
            say("Stopping before it listens.")
            self._starting.cancel()
        self.asked = True

    def from_now_on(
        self,
        server: Server,
        *,
        running: Callable[[], int],
        hurry: Callable[[], None],
        leave: Callable[[], None] = lambda: None,
    ) -> None:
        """Let signals stop `server`; one that came before, too.

        `running` tells how many turns are at work, `hurry` ends the waiting for them, and `leave`
        ends answers that have no end of their own.
        """
        self._server, self._running, self._hurry = server, running, hurry
        self._leave = leave
        if self.asked:
            self._stop(server)

    def _stop(self, server: Server) -> None:
        if not server.should_exit:
            say(f"Stopping: no more webhooks are taken. {_waiting_for(self._running())}")
            self._leave()
        elif not server.force_exit:
            say("Stopping now: turns at work are cancelled and go on at the next start.")
            self._hurry()
        server.stop()


def say(line: str) -> None:
    """Tell whoever started the server, if anybody still reads it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _waiting_for(turns: int) -> str:
    if not turns:
        return "No turn is at work."
    some = "1 turn is" if turns == 1 else f"{turns} turns are"
    return f"{some} at work and may end first; Ctrl-C again cancels what is left."


def _nothing() -> None:
    pass
