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
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

import msgspec

from eventstore.errors import EventStoreError, LogUnavailable, OutcomeUnknown, QueueFull
from eventstore.frames import Frames, frame
from eventstore.group_commit import CLOSED, tell
from eventstore.group_commit import Done as Answer
from eventstore.lasting import Lasting
from eventstore.places import DatabaseFiles
from eventstore.sqlite import SQLiteLog
from eventstore.store import Beat
from eventstore.types import Append, Appended, AppendId, Snapshot
from eventstore.writer import LogWriter, Request
from eventstore.writer_spawn import spawn
from eventstore.writer_wire import (
    LONELY,
    MOVED,
    NOT_OPENED,
    WRITTEN_ELSEWHERE,
    Batch,
    Done,
    error_of,
)

RESTART_SECONDS: Final = 1.0
"""How long to wait with the next process after one that ended before it had done anything."""
USEFUL_SECONDS: Final = 10.0
"""A process that lived so long had not ended because of how it was started."""
END_SECONDS: Final = 8.0
"""How long a process may give no answer before it is killed, when it is to commit what waits and
close its file. Nothing is lost then: the log says what is durable."""
LEAST_END_SECONDS: Final = 2.0
"""How long at least, if it had given none for a while before it was told to end."""

MANY: Final = 24
"""Requests that do not wait for the end of the round: a third of a busy one, worth a commit."""
LOOK_SECONDS: Final = 0.0006
"""How long to look for the answer to a request that is alone: two commits on a quick disk."""
FEW: Final = 4
NO_LOOK: Final = 128
"""Requests that are not looked after when the disk has turned out to be slow: at first, at most."""

_logger = logging.getLogger(__name__)
_Taken = Answer[Appended | None]
_Pair = tuple[_Taken, Appended | EventStoreError | None]


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
        """Start the process. `log` is the same log, which this process only reads from now on.

        Raises `LogUnavailable` if no process can be started.
        """
        super().__init__()
        self._log = log
        self._files = DatabaseFiles.of(log.path)
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
        self._patience = FEW
        self._last = log.head().position
        """The last position that was answered: what is on its way comes after it."""
        self._closed = False
        self._down = ""
        """Why there is no process, and none at once."""
        self._recovering: asyncio.Task[None] | None = None
        self._failing = Lasting()
        """No process can be started that does anything."""
        self._missed = False
        """It was said that the process is lost, and not yet that there is another one."""
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
        """Queue a request. It leaves at the end of this round of the event loop, or at once.

        At once when it is likely to be alone, and when many wait: the process then commits those
        while the loop goes on with the round.
        """
        if self._closed:
            raise LogUnavailable(CLOSED)
        if self._down:
            raise LogUnavailable(self._down)
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
        lonely = self._lonely >= LONELY and not self._sent
        if (lonely or len(self._queue) >= MANY) and self._recovering is None:
            self._leave()

    def close(self) -> None:
        """Commit what is waiting, answer it, and let the process end. Idempotent, from any thread.

        Where that is not the event loop's, the loop must go on: it tells the answers.
        """
        if self._closed:
            return
        loop = self._loop
        if loop is None or not loop.is_running() or loop is _running_loop():
            self._leave_loop()
            for pairs in self._end():
                tell(pairs)
            return
        left = threading.Event()
        loop.call_soon_threadsafe(self._leave_loop, left)
        left.wait(END_SECONDS)
        for pairs in self._end():
            with suppress(RuntimeError):  # the loop was closed: nobody is left to tell
                loop.call_soon_threadsafe(partial(tell, pairs))

    def _leave_loop(self, left: threading.Event | None = None) -> None:
        """Do nothing in the event loop any more, and say so."""
        self._closed = True
        if self._recovering is not None:
            self._recovering.cancel()
        elif self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        if left is not None:
            left.set()

    def _end(self) -> Iterator[list[_Pair]]:
        """Let the process commit what waits and end; yield everybody's answers."""
        deadline = time.monotonic() + max(
            min(LEAST_END_SECONDS, END_SECONDS), END_SECONDS - self.busy_seconds
        )
        if self._recovering is None:
            self._pack()
            self._unsent += frame(b"")
            with suppress(OSError):
                for pairs in self._converse(deadline):
                    deadline = time.monotonic() + END_SECONDS
                    yield pairs
        self._bury(max(1.0, deadline - time.monotonic()))
        yield self._forget(self._settled(self._sent))
        yield self._refused(CLOSED)

    def _converse(self, deadline: float) -> Iterator[list[_Pair]]:
        """Send and read at once, lest both ends wait for each other; until all is answered.

        Or until nothing has been for too long, at first until the `deadline`.
        """
        poll = select.poll()
        while self._sent or self._unsent:
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return
            with suppress(BlockingIOError):
                del self._unsent[: self._socket.send(self._unsent)]
            with suppress(BlockingIOError):
                messages = self._frames.receive(self._socket)
                if messages is None:
                    return
                deadline = max(deadline, time.monotonic() + END_SECONDS)
                yield self._answers(messages)

    # -- the process ------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start a process. Raises `LogUnavailable`."""
        self._process, self._socket = spawn(self._log.path, self._files, says=self._failing.due)
        self._ready = select.poll()
        self._ready.register(self._socket, select.POLLIN)
        self._frames = Frames()
        self._unsent = bytearray()
        self._began = time.monotonic()
        self._useful = False
        """It has answered, or lived for a while."""
        if self._loop is not None:
            self._loop.add_reader(self._socket, self._readable)

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

    def _leave(self) -> None:
        """Send what was asked for."""
        self._pack()
        self._write()

    def _flush(self) -> None:
        """Send what was asked for in a round of the event loop, and look after a lone caller."""
        if self._recovering is not None or self._closed:
            return  # it goes to the next process, or has gone
        self._leave()
        lonely = len(self._sent) == 1 and len(self._sent[0].takers) == 1
        self._lonely = self._lonely + 1 if lonely else 0
        if self._lonely >= LONELY:
            self._look()

    def _look(self) -> None:
        """Look for the answer to one caller's request, before the event loop goes to sleep.

        To sleep and be woken takes as long as the commit. Where the disk is slower than that, it
        is tried again after some others only, and after ever more of them.
        """
        if self._looks_again:
            self._looks_again -= 1
            return
        deadline = time.monotonic() + LOOK_SECONDS
        while not self._ready.poll(0):
            if time.monotonic() > deadline:
                self._looks_again = self._patience
                self._patience = min(2 * self._patience, NO_LOOK)
                return
        self._patience = FEW
        self._readable()

    def _pack(self) -> None:
        """Make one message of what was asked for."""
        queue, self._queue = self._queue, []
        if not queue:
            return
        batch = Batch([request for request, _ in queue if type(request) is Append])
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
            messages = self._frames.receive(self._socket)
        except BlockingIOError:
            return
        except OSError:
            messages = None
        if messages is None:
            self._lose()
        else:
            tell(self._answers(messages))

    def _answers(self, messages: Iterable[bytes]) -> list[_Pair]:
        """Return what has come, and for whom."""
        pairs: list[_Pair] = []
        for message in messages:
            answered = self._decode(message)
            sent = self._sent.popleft()
            if not self._useful:
                self._prove()
            self._waiting -= len(sent.takers)
            answers: list[Appended | EventStoreError | None] = list(answered.answers)
            for place, failed in answered.failures.items():
                answers[place] = error_of(failed)
            self.last_failure = None if answered.lost is None else error_of(answered.lost)
            self._note(answered.answers)
            answers += [self.last_failure] * (len(sent.takers) - len(answers))
            pairs += zip(sent.takers, answers, strict=True)
        return pairs

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
        """Answer who waits for a process that has ended, and start another.

        What waits is taken out only when its answers are there: `close` may come in between.
        """
        lived = time.monotonic() - self._began
        code = await asyncio.to_thread(self._bury, 1.0)
        self._useful |= lived > USEFUL_SECONDS and code != NOT_OPENED
        if self._useful or self._failing.met():
            self._missed = True
            lost = code, self._waiting, self._log.path
            _logger.error("LOG_WRITER_LOST exit_code=%d waiting=%d log=%s", *lost)
        ask = partial(self._settled, list(self._sent), code)
        tell(self._forget(await asyncio.to_thread(ask)))
        down = f"the log's writer ends at once (exit code {code}): see its error output"
        while True:
            if not self._useful:
                self._down, self.last_failure = down, LogUnavailable(down)
                tell(self._refused(down))
                await asyncio.sleep(RESTART_SECONDS)
            try:
                self._start()
                break
            except LogUnavailable as error:
                if self._failing.met():
                    _logger.error("LOG_WRITER_LOST: %s", error)  # noqa: TRY400 - it says it all
                self._useful, down = False, str(error)
        self.restarts += 1
        self._down = ""
        self._recovering = None
        self._flush()

    def _prove(self) -> None:
        """Note that the process does what it is for: after trouble, say so."""
        self._useful = True
        if self._failing.over() or self._missed:
            self._missed = False
            _logger.info("LOG_WRITER_BACK restarts=%d log=%s", self.restarts, self._log.path)

    def _forget(self, settled: list[_Pair]) -> list[_Pair]:
        """Wait no longer for what is settled: all that was sent."""
        self._sent.clear()
        self._waiting -= len(settled)
        return settled

    def _refused(self, reason: str) -> list[_Pair]:
        """Return the answers to what was not sent: nobody will."""
        queue, self._queue = self._queue, []
        self._waiting -= len(queue)
        return [(done, LogUnavailable(reason)) for _, done in queue]

    def _settled(self, batches: Sequence[_Sent], code: int = 0) -> list[_Pair]:
        """Return what the log says of batches whose answers did not come from a process.

        It need not be asked if the process's exit `code` says it all.
        """
        if not batches:
            return []
        missing: EventStoreError
        found: dict[AppendId, Appended] = {}
        try:
            if code not in {NOT_OPENED, MOVED}:
                found = self._log.appended_since(self._last)
            missing = LogUnavailable("the log's writer ended: nothing was appended")
            if code == MOVED:  # what we read is what was moved
                missing = OutcomeUnknown(WRITTEN_ELSEWHERE)
        except Exception as error:  # noqa: BLE001 - whatever it is, they must hear of it
            missing = OutcomeUnknown(f"the log's writer ended, and the log cannot be read: {error}")
        settled: list[_Pair] = []
        for batch, takers, _ in batches:
            ids = [append.append_id for append in batch.appends]
            answers = [found.get(append_id, missing) for append_id in ids]
            answers += [missing] * (len(takers) - len(ids))
            settled += zip(takers, answers, strict=True)
        return settled


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
