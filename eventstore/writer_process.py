"""A log's writer in a process of its own, fed by one event loop.

SQLite takes as long for a commit as the event loop for the requests that are in it. A thread shares
the interpreter with that loop, and both lose half their time to handing it over; a process does
not (docs/decisions/0012-a-process-that-writes.md). Here are no threads: what was asked for in one
round of the loop is one message, and its answers are another.

When the process ends without being told to, the log itself says which of the appends on their way
to it are durable, and another process is started.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec

from eventstore.errors import EventStoreError, LogUnavailable, OutcomeUnknown, QueueFull
from eventstore.group_commit import CLOSED, tell
from eventstore.group_commit import Done as Answer
from eventstore.sqlite import SQLiteLog
from eventstore.store import Beat
from eventstore.types import Append, Appended, AppendId, Snapshot
from eventstore.writer import LogWriter, Request
from eventstore.writer_wire import LONELY, READ, Batch, Done, Frames, error_of, frame

RESTART_SECONDS: Final = 1.0
"""How long to wait with the next process after one that ended without having written anything."""
END_SECONDS: Final = 60.0
"""How long a process may take to close its file before it is killed."""

LOOK_SECONDS: Final = 0.0003
"""How long to look for the answer to a request that is alone: two commits on a quick disk."""
NO_LOOK: Final = 100
"""Requests that are not looked after when the disk has turned out to be slow."""

_logger = logging.getLogger(__name__)
_Taken = Answer[Appended | None]


class _Sent(NamedTuple):
    """A batch on its way, and who waits for it."""

    batch: Batch
    takers: list[_Taken]
    """One for each append, then one for each snapshot and each beat."""
    at: float
    """Monotonic seconds."""


class ProcessWriter(LogWriter):
    """Feeds appends to the process that writes a log on SQLite. Belongs to one event loop."""

    def __init__(self, log: SQLiteLog, *, capacity: int = 10_000) -> None:
        """Start the process. `log` is the same log, which this process only reads from now on."""
        super().__init__()
        self._log = log
        self._capacity = capacity
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Done).decode
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: list[tuple[Request, _Taken]] = []
        """Asked for in this round of the loop, or while there is no process."""
        self._sent: deque[_Sent] = deque()
        self._waiting = 0
        self._lonely = 0
        """Requests in a row, each of which was alone on its way."""
        self._looks_again = 0
        self._last = log.head().position
        """The last position that was answered: what is on its way comes after it."""
        self._closed = False
        self._down: LogUnavailable | None = None
        """Why there is no process, and none at once."""
        self._recovering: asyncio.Task[None] | None = None
        self._start()

    @property
    def waiting(self) -> int:
        """How many requests are not durable yet."""
        return self._waiting

    @property
    def busy_seconds(self) -> float:
        """For how long the store has not answered the transaction in hand; 0 if there is none."""
        return time.monotonic() - self._sent[0].at if self._sent else 0.0

    @property
    def pid(self) -> int:
        """The process that writes."""
        return self._process.pid

    def send(
        self, request: Request, done: _Taken, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        """Queue a request; it leaves at the end of this round of the event loop."""
        if self._closed:
            raise LogUnavailable(CLOSED)
        if self._down is not None:
            raise self._down
        if self._waiting >= self._capacity:
            raise QueueFull(self._waiting)
        self._waiting += 1
        if not self._queue:
            if loop is None:
                loop = asyncio.get_running_loop()
            if loop is not self._loop:
                self._use(loop)
            loop.call_soon(self._flush)
        self._queue.append((request, done))

    def close(self) -> None:
        """Commit what is waiting, answer it, and let the process end. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        if self._recovering is not None:
            self._recovering.cancel()
        with suppress(OSError):
            self._socket.settimeout(END_SECONDS)
            self._pack()
            self._unsent += frame(b"")
            self._socket.sendall(self._unsent)
            while self._sent and (data := self._socket.recv(READ)):
                self._take(data)
        self._bury(END_SECONDS)
        sent, queue = self._orphans()
        tell(self._settled(sent))
        tell([(done, LogUnavailable(CLOSED)) for _, done in queue])

    # -- the process ------------------------------------------------------------------------------

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "eventstore.writer_child",
                    str(self._log.path),
                    str(theirs.fileno()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        for side in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            ours.setsockopt(socket.SOL_SOCKET, side, READ)
        ours.settimeout(0)
        self._socket = ours
        self._ready = select.poll()
        self._ready.register(ours, select.POLLIN)
        self._frames = Frames()
        self._unsent = bytearray()
        self._useful = False
        """It has answered."""
        if self._loop is not None:
            self._loop.add_reader(ours, self._readable)

    def _use(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
        self._loop = loop
        loop.add_reader(self._socket, self._readable)

    def _bury(self, seconds: float) -> int:
        """Return the process's exit code when it has ended."""
        self._socket.close()
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    # -- to and fro -------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Send what was asked for."""
        if self._recovering is not None or self._closed:
            return  # it goes to the next process, or has gone
        self._pack()
        self._write()
        lonely = len(self._sent) == 1 and len(self._sent[0].takers) == 1
        self._lonely = self._lonely + 1 if lonely else 0
        if self._lonely >= LONELY:
            self._look()

    def _look(self) -> None:
        """Look for the answer to one caller's request, before the event loop goes to sleep.

        To sleep and be woken takes as long as the commit. Where the disk is slower than that, it
        is tried again after so many others only.
        """
        if self._looks_again:
            self._looks_again -= 1
            return
        deadline = time.monotonic() + LOOK_SECONDS
        while not self._ready.poll(0):
            if time.monotonic() > deadline:
                self._looks_again = NO_LOOK
                return
        self._readable()

    def _pack(self) -> None:
        """Make one message of what was asked for."""
        queue, self._queue = self._queue, []
        if not queue:
            return
        batch = Batch([request for request, _ in queue if isinstance(request, Append)])
        takers = [done for _, done in queue]
        if len(batch.appends) < len(queue):
            snapshots = [request for request, _ in queue if isinstance(request, Snapshot)]
            beats = [request for request, _ in queue if isinstance(request, Beat)]
            batch = Batch(batch.appends, snapshots, beats)
            kinds = (Append, Snapshot, Beat)
            takers = [done for kind in kinds for request, done in queue if type(request) is kind]
        self._sent.append(_Sent(batch, takers, time.monotonic()))
        self._unsent += frame(self._encode(batch))

    def _write(self) -> None:
        assert self._loop is not None  # noqa: S101 - something was asked for
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            self._loop.add_writer(self._socket, self._writable)
        except OSError:
            self._lose()

    def _writable(self) -> None:
        assert self._loop is not None  # noqa: S101 - it called
        self._loop.remove_writer(self._socket)
        self._write()

    def _readable(self) -> None:
        try:
            data = self._socket.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(data)
        else:
            self._lose()

    def _take(self, data: bytes) -> None:
        """Give everybody the answers that have come."""
        for message in self._frames.feed(data):
            answered = self._decode(message)
            sent = self._sent.popleft()
            self._useful = True
            self._waiting -= len(sent.takers)
            answers: list[Appended | EventStoreError | None] = list(answered.answers)
            for place, failed in answered.failures.items():
                answers[place] = error_of(failed)
            self.last_failure = None if answered.lost is None else error_of(answered.lost)
            self._note(answered.answers)
            answers += [self.last_failure] * (len(sent.takers) - len(answers))
            tell(zip(sent.takers, answers, strict=True))

    def _note(self, answers: Sequence[Appended | None]) -> None:
        """Tell those who listen how far the log reaches; positions grow from answer to answer."""
        last = next((answer for answer in reversed(answers) if answer is not None), None)
        if last is not None:
            self._last = last.last_position
            self._log.observe(last.recorded_at)
            self._tell(self._last)

    # -- when it is lost --------------------------------------------------------------------------

    def _lose(self) -> None:
        if self._recovering is None and not self._closed:
            assert self._loop is not None  # noqa: S101 - it called
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._recovering = self._loop.create_task(self._recover())

    async def _recover(self) -> None:
        """Answer who waits for a process that has ended, and start another."""
        code = await asyncio.to_thread(self._bury, 1.0)
        _logger.error("LOG_WRITER_LOST exit_code=%d waiting=%d", code, self._waiting)
        while True:
            sent, queue = self._orphans(keep_queue=self._useful)
            tell(await asyncio.to_thread(self._settled, sent))
            if not self._useful:
                msg = f"the log's writer ends at once (exit code {code}): see its error output"
                self._down = self.last_failure = LogUnavailable(msg)
                tell([(done, self._down) for _, done in queue])
                await asyncio.sleep(RESTART_SECONDS)
            try:
                self._start()
                break
            except OSError as error:
                self._useful = False
                code = error.errno or -1
        self._down = None
        self._recovering = None
        self._flush()

    def _orphans(
        self, *, keep_queue: bool = False
    ) -> tuple[list[_Sent], list[tuple[Request, _Taken]]]:
        """Return what nobody will answer any more."""
        sent, self._sent = list(self._sent), deque()
        queue: list[tuple[Request, _Taken]] = []
        if not keep_queue:
            queue, self._queue = self._queue, []
        self._waiting -= len(queue) + sum(len(each.takers) for each in sent)
        return sent, queue

    def _settled(
        self, sent: Sequence[_Sent]
    ) -> list[tuple[_Taken, Appended | EventStoreError | None]]:
        """Return what the log says of batches whose answers did not come."""
        if not sent:
            return []
        missing: EventStoreError
        found: dict[AppendId, Appended] = {}
        try:
            found = self._log.appended_since(self._last)
            missing = LogUnavailable("the log's writer ended: nothing was appended")
        except LogUnavailable as error:
            missing = OutcomeUnknown(f"the log's writer ended, and the log cannot be read: {error}")
        settled: list[tuple[_Taken, Appended | EventStoreError | None]] = []
        for batch, takers, _ in sent:
            ids = [append.append_id for append in batch.appends]
            answers = [found.get(append_id, missing) for append_id in ids]
            answers += [missing] * (len(takers) - len(ids))
            settled += zip(takers, answers, strict=True)
        return settled
