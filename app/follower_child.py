"""`python -m app.follower_child --data DIR --bot BOT FD PARENT`: keeps read models current.

It follows one bot's log into its `views.db` and says on the socket FD, after each batch, how far
the models are (`app.projections.following`). It ends with whoever started it: at the end of the
socket, after the batch in hand.
"""

from __future__ import annotations

import argparse
import gc
import os
import socket
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import msgspec
import structlog

from app import logs, stores
from app.bots import the_bot
from app.projections import MODELS, Follower, ReadModel, Views
from app.projections.follower import AS_PROCESS
from app.projections.following import Told
from app.projections.progress import Progress, Report
from app.settings import load
from app.skips import ControlLedger
from eventstore.children import end_with
from eventstore.frames import frame

NICENESS: Final = 5
"""Webhooks come first where there are not processors enough for all."""

_log = structlog.get_logger(__name__)


class Telling(Progress):
    """Progress that somebody else is told of."""

    def __init__(self, models: Sequence[ReadModel], views: Views, listener: socket.socket) -> None:
        """Tell `listener` how far `models` are in `views`."""
        super().__init__(models)
        self._views = views
        self._listener = listener
        self._encode = msgspec.msgpack.Encoder().encode

    def note(self, report: Report) -> None:
        """Note, and tell."""
        super().note(report)
        with suppress(OSError):  # whoever asked is gone: the main thread sees that, too
            self._listener.sendall(frame(self._encode(Told(report, self._views.file))))


def main() -> int:
    """Follow until the end of the socket; return the exit code: 1 if a file cannot be used."""
    options = _parser().parse_args()
    end_with(options.parent)
    logs.join(options.logs)
    os.nice(NICENESS)
    with socket.socket(fileno=options.fd) as server:
        installation = load(data=options.data, bot=options.bot)
        settings = the_bot(installation)
        if not stores.has_log(settings):  # opening it would make an empty one
            _log.error("BD_THREAD_ERROR", doing="open the log", error="it is not at its place")
            return 1
        ledger = ControlLedger(installation, settings.bot)
        try:
            opened = Views.owned(settings.bot_directory / "views.db")
        except (sqlite3.Error, OSError) as error:
            _log.error("BD_THREAD_ERROR", doing="open the read models", error=str(error))
            return 1
        with closing(opened) as views, closing(stores.open_log(settings)) as log:
            follower = Follower(
                log,
                views,
                MODELS,
                ledger=ledger,
                worker=True,
                pace=AS_PROCESS,
                progress=Telling(MODELS, views, server),
            )
            gc.freeze()
            gc.set_threshold(50_000, 50, 1000)
            follower.start()
            with suppress(OSError):
                server.recv(1)  # nothing is ever said: it returns when whoever asked hangs up
            follower.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app.follower_child", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory of all bots' data")
    parser.add_argument("--bot", required=True, help="name of the bot")
    parser.add_argument("--logs", type=Path, required=True, help="directory of technical.log")
    parser.add_argument("fd", type=int, help="the socket")
    parser.add_argument("parent", type=int, help="the process to end with; 0: any")
    return parser


if __name__ == "__main__":
    sys.exit(main())
