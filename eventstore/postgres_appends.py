"""The writing half of a log on PostgreSQL: many appends, one statement, one round trip.

The statement is `append_1` of the schema: it locks the head's row and decides every append by what
is committed then. Nothing about streams is remembered here, so nothing can be out of date: any
number of processes append to one log, and a failover cannot be answered from a stale memory
(`docs/decisions/0009-one-function-appends.md`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import psycopg

from eventstore.clock import StoreClock
from eventstore.errors import (
    AppendRejected,
    Conflict,
    DuplicateKey,
    EpochMismatch,
    EventStoreError,
    LogUnavailable,
    LogWentBack,
    OutcomeUnknown,
)
from eventstore.postgres_arrays import bigints, byteas, texts
from eventstore.postgres_connections import (
    SQL,
    Estimate,
    Server,
    is_lost,
    monotonic_micros,
)
from eventstore.postgres_lineage import Lineage
from eventstore.postgres_notices import Notifier
from eventstore.postgres_patience import PatientConnection
from eventstore.soundness import MAX_APPEND_BYTES, fault
from eventstore.store import Beat
from eventstore.types import (
    Append,
    Appended,
    Clock,
    Epoch,
    Head,
    IdempotencyKey,
    Micros,
    Position,
    Snapshot,
    Version,
)

_POLL_SECONDS: Final = 0.005
_MIN_PAUSE, _MAX_PAUSE = 0.02, 0.25
_DONE, _EPOCH, _VERSION = 0, 1, 2

Answer = Appended | EventStoreError


class PostgresAppends:
    """Appends through one connection; `append_batch` belongs to one thread at a time."""

    def __init__(self, server: Server, clock: Clock | None) -> None:
        """Connect when there is something to write, not before."""
        self._server = server
        self._estimate = Estimate()
        self._held = clock
        self._clock = StoreClock(self._estimate if clock is None else clock)
        self._write_lock = threading.Lock()
        self._closed = False
        self._lineage = Lineage()
        self._since = Position(0)
        """Whatever we append from now on stands after this."""
        self._failure: Exception | None = None
        """Why we have no connection, until `_not_before`: a server that is down is not hammered."""
        self._not_before = 0.0
        self._pause = _MIN_PAUSE
        self._backend: tuple[int, str] = (0, "")
        self._writer: PatientConnection | None = None
        self._notifier = Notifier(server)

    def append_batch(
        self,
        appends: Sequence[Append],
        snapshots: Sequence[Snapshot] = (),
        beats: Sequence[Beat] = (),
    ) -> list[Answer]:
        """Commit the appends in one transaction; see `eventstore.store.LogStore`.

        More than 64 MiB of states take several transactions: what rides along is in the last.
        """
        answers: list[Answer] = []
        with self._write_lock:
            parts = list(_parts(appends)) or [()]
            for part in parts[:-1]:
                answers += self._answer(part, (), ())
            answers += self._answer(parts[-1], snapshots, beats)
        return answers

    def _answer(
        self, appends: Sequence[Append], snapshots: Sequence[Snapshot], beats: Sequence[Beat]
    ) -> list[Answer]:
        if not (appends or snapshots or beats):
            return []
        try:
            writer = self._connected()
        except (psycopg.Error, LogUnavailable) as error:
            return self._refuse(appends, error)
        try:
            return self._commit(writer, appends, snapshots, beats)
        except psycopg.Error as error:
            if not is_lost(error) and not writer.closed:
                if error.sqlstate == "25006":  # perhaps the name leads to the new primary by now
                    self._disconnect()
                return self._refuse(appends, error)
            return self._settle(appends, error)
        except BaseException:
            self._disconnect()
            raise

    def _commit(
        self,
        writer: PatientConnection,
        appends: Sequence[Append],
        snapshots: Sequence[Snapshot],
        beats: Sequence[Beat],
    ) -> list[Answer]:
        faults = [fault(append) for append in appends]
        sound = [a for a, wrong in zip(appends, faults, strict=True) if wrong is None]
        asked = monotonic_micros()
        row = self._transact(writer, sound, snapshots, beats)
        told: list[Answer] = []
        if row is not None:
            epoch, at, *columns = row
            self._estimate.observe(at, asked, monotonic_micros())
            told = [_answer(a, epoch, *one) for a, *one in zip(sound, *columns, strict=True)]
            self._note(sound, told)
        answers = iter(told)
        return [next(answers) if wrong is None else AppendRejected(wrong) for wrong in faults]

    def _transact(
        self,
        writer: PatientConnection,
        appends: Sequence[Append],
        snapshots: Sequence[Snapshot],
        beats: Sequence[Beat],
    ) -> tuple[Any, ...] | None:
        """Send one transaction in one round trip; return what `append_1` answers, once durable."""
        held = self._held and self._clock.now()
        values = (held, *_parameters(appends)) if appends else ()
        if not snapshots and not beats:
            return writer.execute(SQL["append"], values, binary=True).fetchone() if values else None
        with writer.pipeline(), writer.transaction():
            appending = writer.execute(SQL["append"], values, binary=True) if values else None
            for s in snapshots:
                snapshot = (s.stream, s.version, s.epoch, s.shape, s.state)
                writer.execute(SQL["keep_snapshot"], snapshot)
            for b in beats:
                beat = (held, b.node, b.incarnation, b.release, b.started_at, b.status)
                writer.execute(SQL["beat"], beat)
        return appending.fetchone() if appending is not None else None

    def _note(self, appends: Sequence[Append], answers: Sequence[Answer]) -> None:
        """Remember where the log ends now, and let others know."""
        for append, answer in zip(reversed(appends), reversed(answers), strict=True):
            if isinstance(answer, Appended):
                self._lineage.saw(answer.last_position, append.append_id)
                self._since = answer.last_position
                self._clock.observe(answer.recorded_at)
                self._notifier.tell(answer.last_position)
                return

    def forget_nodes(self, before: Micros) -> int:
        """Delete the rows of nodes that last beat before an instant; return how many."""
        return self._delete_nodes("forget_nodes", (before,))

    def forget_node(self, node: str, incarnation: str) -> bool:
        """Delete the row of a node that ends; return whether that incarnation had one."""
        return bool(self._delete_nodes("forget_node", (node, incarnation)))

    def _delete_nodes(self, query: str, values: tuple[object, ...]) -> int:
        try:
            with self._write_lock:
                return self._connected().execute(SQL[query], values).rowcount
        except psycopg.Error as error:
            msg = f"cannot write the log ({self._server.why(error)}): no node was forgotten"
            raise LogUnavailable(msg) from error

    # -- connections that come and go

    def _connected(self) -> PatientConnection:
        """Return the writer's connection, a new one if need be, over a log that is still ours."""
        if self._closed:
            msg = "the log is closed"
            raise LogUnavailable(msg)
        self._refuse_if_lost()
        if self._writer is not None and not self._writer.closed and not self._writer.has_ended():
            return self._writer
        if self._failure is not None and time.monotonic() < self._not_before:
            raise self._failure.with_traceback(None)
        self._disconnect()
        writer = None
        try:
            writer = self._server.connect()
            self._lineage.check(writer)
            self._refuse_if_lost()
            head = self._look_around(writer)
        except BaseException as error:
            self._failure = error if isinstance(error, Exception) else None
            self._not_before = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _MAX_PAUSE)
            if writer is not None:
                writer.close()
            raise
        self._pause = _MIN_PAUSE
        self._writer = writer
        self._since = head.position
        self._clock.observe(head.recorded_at)
        return writer

    def _refuse_if_lost(self) -> None:
        if self._lineage.lost is not None:
            raise LogWentBack(self._lineage.lost)

    def _look_around(self, writer: PatientConnection) -> Head:
        """Learn the server's time, process and head."""
        asked = monotonic_micros()
        told = _one(writer, "select_now")[0]
        self._estimate.observe(told, asked, monotonic_micros())
        # Whatever the connection before this one left behind is waited for by nobody any more.
        writer.execute(SQL["end_backend"], self._backend)
        pid, started = _one(writer, "select_backend")
        self._backend = (pid, started)
        epoch, position, recorded_at = _one(writer, "select_head")
        return Head(epoch, position, recorded_at)

    def _disconnect(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    # -- what to say when it failed

    def _refuse(self, appends: Sequence[Append], error: Exception) -> list[Answer]:
        """Nothing was appended: say so to everyone."""
        unavailable: LogUnavailable
        if isinstance(error, LogWentBack):
            unavailable = LogWentBack(error.position)
        else:
            msg = f"cannot write the log ({self._server.why(error)}): nothing was appended"
            unavailable = LogUnavailable(msg)
        if not appends:
            raise unavailable from error
        return [unavailable] * len(appends)

    def _settle(self, appends: Sequence[Append], error: psycopg.Error) -> list[Answer]:
        """After a lost connection: what is in the log is done, the rest was not appended."""
        since, backend = self._since, self._backend
        deadline = time.monotonic() + self._server.settings.settle_seconds
        while True:
            try:
                self._disconnect()
                self._not_before = 0.0
                found = self._find(appends, since, backend)
                break
            except LogWentBack as lost:  # what came after that is not there, either
                return self._refuse(appends, lost)
            except (psycopg.Error, LogUnavailable) as again:
                if time.monotonic() < deadline:
                    time.sleep(self._pause)
                    continue
                unknown = OutcomeUnknown(
                    f"the connection was lost during COMMIT ({error}), and the log cannot be "
                    f"asked: {self._server.why(again)}"
                )
                if not appends:
                    raise unknown from error
                return [unknown] * len(appends)
        if not appends:
            return self._refuse(appends, error)
        [unavailable] = self._refuse(appends[:1], error)
        answers = [found.get(append.append_id, unavailable) for append in appends]
        self._note(appends, answers)
        return answers

    def _find(
        self, appends: Sequence[Append], since: Position, backend: tuple[int, str]
    ) -> dict[bytes, Appended]:
        """Return which appends are in the log, when no server process can add to them any more."""
        writer = self._connected()
        ids = byteas([append.append_id for append in appends])
        while True:
            # Gone first, then looked: what it committed before it went is seen.
            gone = writer.execute(SQL["end_backend"], backend).fetchone() is None
            [epoch, *_] = _one(writer, "select_head")
            found = {
                row[0]: Appended(epoch, row[1], row[2], row[3], row[4])
                for row in writer.execute(SQL["select_append_ids"], (since, ids))
            }
            if gone or len(found) == len(appends):
                if found:  # seen here, but perhaps not where synchronous replication wants it
                    writer.execute(SQL["confirm"])
                return found
            time.sleep(_POLL_SECONDS)


def _one(connection: PatientConnection, query: str) -> tuple[Any, ...]:
    row = connection.execute(SQL[query]).fetchone()
    if row is None:
        msg = f"{query} found nothing: this is not a log of ours"
        raise psycopg.DataError(msg)
    return row


def _parts(appends: Sequence[Append]) -> Iterator[Sequence[Append]]:
    """Cut a batch so that each part fits one statement."""
    start = size = 0
    for i, append in enumerate(appends):
        weight = sum(len(event.state) for event in append.events)
        if size and size + weight > MAX_APPEND_BYTES:
            yield appends[start:i]
            start, size = i, 0
        size += weight
    if start < len(appends):
        yield appends[start:]


def _parameters(appends: Sequence[Append]) -> tuple[object, ...]:
    """Return the parameters of `append_1` after the first, in its order."""
    names: dict[str, int] = {}
    wanted: list[IdempotencyKey] = []
    stream_no: list[int] = []
    own_until: list[int] = []
    until: list[int] = []
    append_no: list[int] = []
    place: list[int] = []
    types: list[str] = []
    keys: list[IdempotencyKey | None] = []
    states: list[bytes] = []
    for no, append in enumerate(appends, 1):
        stream_no.append(names.setdefault(append.stream, len(names) + 1))
        size = len(append.events)
        append_no += [no] * size
        place += range(1, size + 1)
        for event in append.events:
            key = event.key
            types.append(event.type)
            keys.append(key)
            states.append(event.state)
            if key is not None:
                wanted.append(key)
        own_until.append(len(wanted))
        wanted += append.absent
        until.append(len(wanted))
    return (
        texts(list(names)),
        len(set(wanted)) < len(wanted),
        byteas(wanted),
        bigints(stream_no),
        bigints([a.expected for a in appends]),
        bigints([a.epoch for a in appends]),
        bigints([len(a.events) for a in appends]),
        byteas([a.append_id for a in appends]),
        bigints(own_until),
        bigints(until),
        bigints(append_no),
        bigints(place),
        texts(types),
        byteas(keys),
        byteas(states),
    )


def _answer(  # noqa: PLR0913, PLR0917 - the columns of `append_1`
    append: Append, epoch: Epoch, outcome: int, first: int, version: int, at: int, key: bytes | None
) -> Answer:
    if outcome == _DONE:
        last = first + len(append.events) - 1
        return Appended(epoch, Position(first), Position(last), Version(version), Micros(at))
    if outcome == _EPOCH:
        return EpochMismatch(append.epoch, epoch)
    if outcome == _VERSION:
        return Conflict(append.stream, append.expected, Version(version))
    return DuplicateKey(key or b"")
