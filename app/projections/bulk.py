"""Bulk work in a child process, so that a long rebuild never makes the server's writer wait.

The child is `python -m app.worker`; it says how far it is as JSON lines on its standard output.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog

_log = structlog.get_logger(__name__)

Work = Literal["rebuild", "catch-up", "export", "thread-files"]


def worker_command(bot_directory: Path, work: Work, models: Sequence[str]) -> list[str]:
    """Return the command line of the child."""
    names = [argument for name in models for argument in ("--model", name)]
    where = ["--data", str(bot_directory.parent), "--bot", bot_directory.name]
    return [sys.executable, "-m", "app.worker", work, *where, *names]


class BulkWorker:
    """At most one child at a time. Methods are called from one thread, properties from any."""

    def __init__(self, bot_directory: Path, *, on_end: Callable[[], object]) -> None:
        """Work for one bot; `on_end` is called, on another thread, when a child has ended."""
        self._directory = bot_directory
        self._on_end = on_end
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._last: dict[str, Any] = {}
        self._code: int | None = None

    @property
    def running(self) -> bool:
        """Whether a child is at work."""
        return self._process is not None and self._code is None

    @property
    def exit_code(self) -> int | None:
        """How the last child ended; None before there was one, and while one is at work."""
        return self._code

    @property
    def last_line(self) -> dict[str, Any]:
        """What the child said last."""
        return self._last

    def start(self, work: Work, models: Sequence[str]) -> None:
        """Start a child. Do nothing if one is at work."""
        if self.running:
            return
        self.stop()
        command = worker_command(self._directory, work, models)
        self._process = subprocess.Popen(  # as this process was started, without a shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # what is no JSON line goes to our log
        )
        self._code = None
        self._thread = threading.Thread(
            target=self._listen, args=(self._process,), name="hilo-bulk", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the child, if there is one: what it did so far is kept. Idempotent."""
        if self._process is not None and self._thread is not None:
            if self._code is None:
                self._process.terminate()
            self._thread.join()
        self._process = self._thread = None

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        with process.stdout as lines:
            for line in lines:
                try:
                    self._last = msgspec.json.decode(line, type=dict[str, Any])
                except msgspec.MsgspecError:
                    _log.warning("BULK_WORKER", line=line.decode(errors="replace").strip())
        self._code = process.wait()
        _log.info("BULK_WORKER", exit_code=self._code, last=self._last)
        self._on_end()
