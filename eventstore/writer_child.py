"""`python -m eventstore.writer_child LOG SAYS FD PARENT`: the process that writes a log on SQLite.

It reads batches of requests from the socket FD, commits whatever has come in one transaction, and
answers when that is durable. It ends with whoever started it: at the end of the socket at once,
like that process would have, and after an empty message once its file is closed in good order.
Signals that tell a server to end are held back by the process that started it.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from eventstore.children import end_with
from eventstore.errors import EventStoreError, LogUnavailable, OutcomeUnknown
from eventstore.frames import Frames, frame
from eventstore.sqlite import SQLiteLog
from eventstore.sqlite_place import Moved, Place
from eventstore.sqlite_wal import ROOM, reserve
from eventstore.types import Appended
from eventstore.writer_wire import LONELY, NOT_OPENED, Batch, Done, done

MOST_AT_ONCE: Final = 512
"""Appends of one transaction, unless a single batch has more."""
SPIN_SECONDS: Final = 0.0003
"""How long to look for the next request of a caller that waits for each answer, before sleeping."""

_OF_ALL: Final = (LogUnavailable, OutcomeUnknown)
"""What fails with the whole transaction."""
_logger = logging.getLogger(__name__)


class Inbox:
    """The batches that have come, and how to wait for more."""

    def __init__(self, source: socket.socket) -> None:
        """Read from `source`."""
        self._source = source
        self._frames = Frames()
        self._decode = msgspec.msgpack.Decoder(Batch).decode
        self._ready = select.poll()
        self._ready.register(source, select.POLLIN)
        self._spins = _processors() > 1
        self._waiting: list[Batch] = []
        self.ended = False
        """Nobody will ask any more."""
        self.in_order = False
        """We were told to end."""

    def take(self, *, soon: bool) -> list[Batch]:
        """Return the batches of the next transaction; none at the end.

        `soon`: the next one is likely to come in no time.
        """
        seen: list[tuple[int, int]] = []
        while not self._waiting and not self.ended:
            seen = self._spin() if soon and self._spins else []
            self._read()
        taken: list[Batch] = []
        appends = 0
        for batch in self._waiting:
            if taken and appends + len(batch.appends) > MOST_AT_ONCE:
                break
            taken.append(batch)
            appends += len(batch.appends)
        del self._waiting[: len(taken)]
        if any(event & select.POLLHUP for _, event in seen or self._ready.poll(0)):
            self.ended = True  # like whoever asked: another may be at the log already
            return []
        return taken

    def _spin(self) -> list[tuple[int, int]]:
        """Look for what comes next; return what was seen of the socket, if anything was."""
        deadline = time.monotonic() + SPIN_SECONDS
        while not (seen := self._ready.poll(0)) and time.monotonic() < deadline:
            pass
        return seen

    def _read(self) -> None:
        messages = self._frames.receive(self._source)
        if messages is None:
            self.ended = True
        for message in messages or ():
            if message:
                self._waiting.append(self._decode(message))
            else:
                self.ended = self.in_order = True


def _committed(log: SQLiteLog, batches: list[Batch]) -> Iterator[Done]:
    """Commit the batches in one transaction; yield the answer to each."""
    appends = [append for batch in batches for append in batch.appends]
    answers: list[Appended | EventStoreError]
    lost: EventStoreError | None
    try:
        answers = log.append_batch(
            appends,
            [snapshot for batch in batches for snapshot in batch.snapshots],
            [beat for batch in batches for beat in batch.beats],
        )
        lost = next((a for a in answers if isinstance(a, _OF_ALL)), None)
    except (LogUnavailable, OutcomeUnknown) as error:
        lost = error
        answers = [lost] * len(appends)
    except Exception as error:  # whatever it is, its callers must hear of it
        _logger.exception("a batch of %d appends failed", len(appends))
        lost = OutcomeUnknown(f"the log's writer failed: {type(error).__name__}")
        answers = [lost] * len(appends)
    start = 0
    for batch in batches:
        end = start + len(batch.appends)
        yield done(answers[start:end], lost)
        start = end


def _processors() -> int:
    """Return how many processors this process may use; not every system tells."""
    usable = getattr(os, "sched_getaffinity", None)
    return (os.cpu_count() or 1) if usable is None else len(usable(0))


def serve(log: SQLiteLog, source: socket.socket) -> bool:
    """Commit what comes until the end; return whether it was told to end.

    Raises `Moved` when the log is in files that whoever starts next will not find.
    """
    place = Place(log)
    inbox = Inbox(source)
    encode = msgspec.msgpack.Encoder().encode
    lonely = commits = 0
    while batches := inbox.take(soon=lonely >= LONELY):
        place.check()
        answers = b"".join([frame(encode(answer)) for answer in _committed(log, batches)])
        last = place.confirm()
        source.sendall(answers)
        if last:
            place.check()
        lonely = lonely + 1 if len(batches) == len(batches[0].appends) == 1 else 0
        commits += 1
        if commits in ROOM:
            size = ROOM[commits]
            threading.Thread(target=reserve, args=(log.path, size), daemon=True).start()
    return inbox.in_order


def main(path: str, says: str, number: str, parent: str) -> None:
    """Open the log, and serve until the end. The process ends here.

    Why the log cannot be used is said if `says` is 1.
    """
    end_with(int(parent))
    with socket.socket(fileno=int(number)) as source:
        try:
            log = SQLiteLog(Path(path), server=True)
        except LogUnavailable as error:
            if int(says):
                _logger.error("LOG_WRITER_FAILED: %s", error)  # noqa: TRY400 - it says it all
            sys.exit(NOT_OPENED)
        gc.freeze()
        gc.set_threshold(100_000, 50, 1000)
        try:
            in_order = serve(log, source)
        except Moved as error:
            _logger.error("LOG_WRITER_FAILED: %s", error)  # noqa: TRY400 - it says it all
            os._exit(error.code)
        except OSError:  # whoever asked is gone
            in_order = False
        if not in_order:
            os._exit(0)
        log.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
