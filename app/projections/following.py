"""The live follower in a process of its own, as the server sees it.

Beside a busy event loop a thread that keeps the read models current takes the interpreter away from
it, and is slow itself (docs/decisions/0013-a-process-that-follows.md). The process looks at the log
by itself and says after each batch how far the models are; nothing is asked of it. When it ends
without being told to, another one is started: what it had committed is kept, the rest is in the
log.
"""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import structlog

from app.derived import FileId
from app.projections.model import ReadModel
from app.projections.progress import Progress, Report
from app.projections.views import Views
from eventstore.children import start
from eventstore.frames import Frames

CHILD: Final = "app.follower_child"
FIRST_PAUSE_SECONDS: Final = 0.5
"""Before another process is started; twice as long each time, while they end at once."""
LONGEST_PAUSE_SECONDS: Final = 60.0
USEFUL_SECONDS: Final = 10.0
"""A process that lived so long had not ended because of how it was started."""
END_SECONDS: Final = 5.0
"""How long a process may take to end its batch and close its files before it is killed."""

_log = structlog.get_logger(__name__)


def arguments(data: Path, bot: str, logs: Path) -> list[str]:
    """Return what tells the process whose read models to keep, and where to write its log."""
    return ["--data", str(data), "--bot", bot, "--logs", str(logs)]


class Told(msgspec.Struct, frozen=True, array_like=True):
    """What the process says after a batch."""

    report: Report
    file: FileId | None
    """The `views.db` that it writes to."""


class FollowerProcess:
    """Keeps a process that follows one log. `start` and `stop` it once, from any thread."""

    def __init__(self, views: Views, models: Sequence[ReadModel], arguments: Sequence[str]) -> None:
        """`arguments` tell the process which log and which file; `views` is that file, to read."""
        self.progress = Progress(models)
        self.restarts = 0
        """How often a process ended without being told to."""
        self._bot = views.path.parent.name
        self._missed = False
        """A process has ended, and none has said anything since."""
        self._views = views
        self._arguments = tuple(arguments)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="hilo-following", daemon=True)

    @property
    def pid(self) -> int | None:
        """The process that follows now, if there is one."""
        process = self._process
        return None if process is None else process.pid

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Let the process end after the batch in hand, or kill it. Idempotent."""
        self._stopping.set()
        with self._lock:
            if self._socket is not None:
                _hang_up(self._socket)
        if self._thread.ident is not None:
            self._thread.join(END_SECONDS)
            if self._thread.is_alive() and (process := self._process) is not None:
                process.kill()
            self._thread.join(END_SECONDS)  # what cannot be killed ends with the machine
        self.progress.end()

    def wake(self) -> None:
        """Do nothing: the process sees by itself that the log has grown."""

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            began = time.monotonic()
            code = self._follow()
            if self._stopping.is_set():
                return
            self.restarts += 1
            self._missed = True
            _log.error("BD_THREAD_ERROR", doing="follow the log", exit_code=code, bot=self._bot)
            if time.monotonic() - began > USEFUL_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _follow(self) -> int | None:
        """Start a process and listen to it; return its exit code, None if none could be started."""
        try:  # this thread lives until the process has ended
            process, ours = start(CHILD, self._arguments, lasting=True)
        except OSError as error:
            _log.error("BD_THREAD_ERROR", doing="start a follower", error=error.strerror)
            return None
        with ours:
            with self._lock:
                self._process, self._socket = process, ours
                if self._stopping.is_set():
                    _hang_up(ours)
            self._listen(ours)
            with self._lock:
                self._socket = None
        code = process.wait()  # it says nothing more: it is ending, or `stop` sees to it
        self._process = None
        return code

    def _listen(self, ours: socket.socket) -> None:
        """Note what the process says, until it hangs up."""
        frames = Frames()
        decode = msgspec.msgpack.Decoder(Told).decode
        while True:
            try:
                messages = frames.receive(ours)
            except OSError:
                return
            if messages is None:
                return
            for message in messages:
                if self._missed:
                    self._missed = False
                    _log.info("READ_MODELS_BACK", restarts=self.restarts, bot=self._bot)
                told = decode(message)
                self._look_at_file(told.file)
                self.progress.note(told.report)

    def _look_at_file(self, file: FileId | None) -> None:
        """Go over to the file that the process went over to."""
        if file == self._views.file or self._views.is_in_place:
            return
        try:
            self._views.open_again()
        except (sqlite3.Error, OSError) as error:  # it is tried again after the next batch
            kind = type(error).__name__
            _log.warning("BD_THREAD_ERROR", doing="open the views again", error=kind)


def _hang_up(ours: socket.socket) -> None:
    """Tell the process to end."""
    with suppress(OSError):  # it has ended
        ours.shutdown(socket.SHUT_WR)
