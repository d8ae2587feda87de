"""Whether a log on SQLite is still where it was, looked at around each transaction of its writer.

The process that writes a log does so, and so does the thread that may stand for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

from eventstore.errors import EventStoreError, LogUnavailable, OutcomeUnknown
from eventstore.lasting import Lasting
from eventstore.places import DatabaseFiles, Directory, not_as_it_was
from eventstore.sqlite import SQLiteLog
from eventstore.store import Beat
from eventstore.types import Append, Appended, Snapshot
from eventstore.writer import Writer
from eventstore.writer_wire import MOVED, NOT_OPENED, WRITTEN_ELSEWHERE

FRESH_SECONDS: Final = 0.001
"""For how long it is taken for granted that the log's file is still at its place."""

_logger = logging.getLogger(__name__)


class Moved(LogUnavailable):
    """The log's files are not at their place any more. `code` says what that means for callers."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Place:
    """Whether a log's files are where they were, so that whoever starts next finds what is written.

    Looked at before a transaction, so that nothing is begun in vain, and after it, before anybody
    is told that it is durable: moved in between, it might be in a file that nobody will find.
    """

    def __init__(self, log: SQLiteLog) -> None:
        """Note which files they are now."""
        self._log = log
        self._files = DatabaseFiles.of(log.path)
        self._directory = Directory(log.path.parent)
        self._is_link = log.path.is_symlink()  # then its directory tells nothing
        self._until = 0.0

    def check(self) -> None:
        """Look, unless that was done just now. Raises `Moved`, with nothing begun."""
        if time.monotonic() > self._until and not self._look():
            raise Moved(NOT_OPENED, self._said())

    def confirm(self) -> bool:
        """Look at what a transaction was written to; return whether it is the last one.

        Raises `Moved` if what was written may be elsewhere.
        """
        if self._look():
            return False
        if self._is_saved:
            return True
        raise Moved(MOVED, self._said())

    def _look(self) -> bool:
        self._until = 0.0
        self._is_saved = False
        same = self._directory.is_as_it_was() and not self._is_link
        self._found = self._files if same else DatabaseFiles.of(self._log.path)
        if self._found == self._files:
            self._until = time.monotonic() + FRESH_SECONDS
            return True
        self._directory.forget()
        if self._files is not None and self._files.but_for_wal(self._found):
            # We have what was in it, and the log itself is at its place.
            self._is_saved = self._log.checkpoint()
        return False

    def _said(self) -> str:
        said = not_as_it_was(self._log.path, self._found)
        return f"{said}. What was in the -wal is in the log now" if self._is_saved else said


class SQLiteWriter(Writer):
    """Feeds appends to a log on SQLite by a thread, which looks after its files as a process does.

    While they are elsewhere nothing is written; it goes on by itself once they are put back.
    """

    def __init__(self, log: SQLiteLog, *, capacity: int = 10_000) -> None:
        """Start the thread. At most `capacity` appends wait for the disk."""
        self._place = Place(log)
        self._failing = Lasting()
        super().__init__(log, capacity=capacity)

    def _append(
        self, appends: Sequence[Append], snapshots: Sequence[Snapshot], beats: Sequence[Beat]
    ) -> Sequence[Appended | EventStoreError]:
        try:
            self._place.check()
            answers = super()._append(appends, snapshots, beats)
            self._place.confirm()
        except Moved as error:
            if self._failing.met():
                _logger.error("LOG_WRITER_FAILED: %s", error)  # noqa: TRY400 - it says it all
            if error.code == MOVED:
                raise OutcomeUnknown(WRITTEN_ELSEWHERE) from error
            raise
        if self._failing.over():
            _logger.info("LOG_WRITER_BACK")
        return answers
