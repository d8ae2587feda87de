"""Starting a process that ends with this one, and the socket between the two."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

HELD: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that tell a server to end, often by way of all its processes: it tells its children."""
_SET_DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>


def start(
    module: str, arguments: Sequence[str], *, lasting: bool
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start `python -m MODULE ARGUMENT… FD PARENT`; return it and our end of the socket FD.

    The child calls `end_with` with PARENT. `lasting`: the calling thread lives as long as this
    process, or at least as long as the child; the system tells a child of the end of the thread
    that started it, not of the process. Raises `OSError`.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        parent = os.getpid() if lasting else 0
        command = [sys.executable, "-m", module, *arguments, str(theirs.fileno()), str(parent)]
        try:
            with _held(HELD):
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
        except OSError:
            ours.close()
            raise
    return process, ours


def end_with(parent: int) -> None:
    """Let the system kill this process when the one that started it is killed.

    Even if it is stopped by then: it may hold a lock that another server needs. Linux only;
    elsewhere, and where `parent` is 0, it ends when it next looks at its socket.
    """
    if not parent:
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


@contextmanager
def _held(signals: tuple[signal.Signals, ...]) -> Iterator[None]:
    """Hold signals back from this thread, and for ever from the processes that it starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
