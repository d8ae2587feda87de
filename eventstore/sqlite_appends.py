"""The writing half of a log on SQLite: many appends, one transaction.

Versions, epochs and keys are checked inside the transaction that inserts, `BEGIN IMMEDIATE`, so
that any process may append: the server, and the command line beside it.

Rows of a batch go in as multi-row INSERTs. Python's `sqlite3` gives up the interpreter lock at
every statement and must win it back from a busy event loop, so few statements matter more than
small ones (`docs/decisions/0003-few-statements-a-commit.md`).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence

from eventstore.clock import StoreClock
from eventstore.errors import (
    AppendRejected,
    Conflict,
    DuplicateKey,
    EpochMismatch,
    EventStoreError,
    LogUnavailable,
    OutcomeUnknown,
)
from eventstore.soundness import fault
from eventstore.sqlite_connections import SQL
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
    StreamName,
    Version,
)

_COLUMNS = 8
_ROWS_PER_INSERT = 128
_KEYS_PER_SELECT = 500
_STREAM_CACHE = 20_000

Row = tuple[int, int, int, str, int, bytes | None, bytes, bytes]


class _Planned:
    """What one batch will insert, and what its callers will hear once it is durable."""

    __slots__ = ("answers", "position", "recorded_at", "refused", "rows")

    def __init__(self, head: Head) -> None:
        self.rows: list[Row] = []
        self.answers: list[Appended | EventStoreError] = []
        self.position: int = head.position
        self.recorded_at: int = head.recorded_at
        self.refused = False


class SQLiteAppends:
    """Appends through one connection; `append_batch` belongs to one thread at a time."""

    def __init__(self, writer: sqlite3.Connection, clock: Clock) -> None:
        """Take the connection that is used for nothing else."""
        self._writer = writer
        self._clock = StoreClock(clock)
        self._write_lock = threading.Lock()
        self._head: Head | None = None
        self._streams: dict[StreamName, tuple[int, int]] = {}

    def append_batch(
        self,
        appends: Sequence[Append],
        snapshots: Sequence[Snapshot] = (),
        beats: Sequence[Beat] = (),
    ) -> list[Appended | EventStoreError]:
        """Commit the appends in one transaction; see `eventstore.store.LogStore`."""
        with self._write_lock:
            try:
                try:
                    return self._commit(appends, snapshots, beats, check_keys=False)
                except sqlite3.IntegrityError:
                    # A key is taken, here or inside this batch: find out whose, the slow way.
                    self._abandon()
                    return self._commit(appends, snapshots, beats, check_keys=True)
            except sqlite3.Error as error:
                return self._settle(appends, error)
            except BaseException:
                self._abandon()
                raise

    def _commit(
        self,
        appends: Sequence[Append],
        snapshots: Sequence[Snapshot],
        beats: Sequence[Beat],
        *,
        check_keys: bool,
    ) -> list[Appended | EventStoreError]:
        execute = self._writer.execute
        execute("BEGIN IMMEDIATE")
        known = self._head
        if known is None:
            known = self._head = self._refresh_head()
            self._clock.observe(known.recorded_at)
        plan = self._plan(appends, known, check_keys=check_keys)
        if plan.rows:
            moved = execute(
                SQL["advance_head"],
                (plan.position, plan.recorded_at, known.epoch, known.position),
            ).rowcount
            stale = moved == 0
        else:
            stale = plan.refused and known != self._refresh_head()
        if stale:  # another process has appended, or restored, since our last commit
            self._writer.execute("ROLLBACK")
            self._forget()
            return self._commit(appends, snapshots, beats, check_keys=check_keys)
        self._insert(plan.rows)
        for s in snapshots:
            execute(SQL["upsert_snapshot"], (s.stream, s.version, s.epoch, s.shape, s.state))
        for b in beats:
            row = (b.node, b.incarnation, b.release, b.started_at, self._clock.now(), b.status)
            execute(SQL["upsert_node"], row)
        execute("COMMIT")
        self._head = Head(known.epoch, Position(plan.position), Micros(plan.recorded_at))
        self._clock.observe(self._head.recorded_at)
        if len(self._streams) > _STREAM_CACHE:  # never within a plan: it holds versions to come
            self._streams.clear()
        return plan.answers

    def forget_nodes(self, before: Micros) -> int:
        """Delete the rows of nodes that last beat before an instant; return how many there were."""
        return self._delete_nodes("forget_nodes", (before,))

    def forget_node(self, node: str, incarnation: str) -> bool:
        """Delete the row of a node that ends; return whether that incarnation had one."""
        return bool(self._delete_nodes("forget_node", (node, incarnation)))

    def _delete_nodes(self, query: str, values: tuple[object, ...]) -> int:
        with self._write_lock:
            try:
                return self._writer.execute(SQL[query], values).rowcount
            except sqlite3.Error as error:
                msg = f"cannot write the log ({error}): no node was forgotten"
                raise LogUnavailable(msg) from error

    def _refresh_head(self) -> Head:
        epoch, position, recorded_at = self._writer.execute(SQL["select_head"]).fetchone()
        return Head(Epoch(epoch), Position(position), Micros(recorded_at))

    def _plan(self, appends: Sequence[Append], head: Head, *, check_keys: bool) -> _Planned:
        plan = _Planned(head)
        taken = self._taken_keys(appends, own=check_keys)
        for append in appends:
            refusal = self._refusal(append, head.epoch, taken)
            if refusal is not None:
                plan.refused = True
                plan.answers.append(refusal)
                continue
            stream_id, version = self._stream(append.stream, create=True)
            recorded_at = max(self._clock.now(), plan.recorded_at + 1)
            first = plan.position + 1
            position = plan.position
            append_id = append.append_id
            for event in append.events:
                position += 1
                version += 1
                key = event.key
                if key is not None:
                    taken.add(key)
                plan.rows.append(
                    (
                        position,
                        stream_id,
                        version,
                        event.type,
                        recorded_at,
                        key,
                        append_id,
                        event.state,
                    )
                )
            self._streams[append.stream] = (stream_id, version)
            plan.position = position
            plan.recorded_at = recorded_at
            plan.answers.append(
                Appended(
                    head.epoch,
                    Position(first),
                    Position(position),
                    Version(version),
                    Micros(recorded_at),
                )
            )
        return plan

    def _refusal(
        self, append: Append, epoch: Epoch, taken: set[IdempotencyKey]
    ) -> EventStoreError | None:
        if append.epoch != epoch:
            return EpochMismatch(append.epoch, epoch)
        wrong = fault(append)
        if wrong is not None:
            return AppendRejected(wrong)
        version = Version(self._stream(append.stream)[1])
        if version != append.expected:
            return Conflict(append.stream, append.expected, version)
        for event in append.events:
            if event.key is not None and event.key in taken:
                return DuplicateKey(event.key)
        for key in append.absent:
            if key in taken:
                return DuplicateKey(key)
        return None

    def _taken_keys(self, appends: Sequence[Append], *, own: bool) -> set[IdempotencyKey]:
        keys = [key for append in appends for key in append.absent]
        if own:
            keys += [e.key for append in appends for e in append.events if e.key is not None]
        taken: set[IdempotencyKey] = set()
        for start in range(0, len(keys), _KEYS_PER_SELECT):
            some = keys[start : start + _KEYS_PER_SELECT]
            marks = ",".join("?" * len(some))
            query = f"SELECT key FROM events WHERE key IN ({marks})"  # noqa: S608 - marks only
            taken.update(row[0] for row in self._writer.execute(query, some))
        return taken

    def _stream(self, name: StreamName, *, create: bool = False) -> tuple[int, int]:
        """Return (id, version); (0, 0) for a stream that is not born yet, unless `create`."""
        cached = self._streams.get(name)
        if cached is not None:
            return cached
        row = self._writer.execute(SQL["select_stream"], (name,)).fetchone()
        if row is None:
            if not create:
                return 0, 0
            row = (self._writer.execute(SQL["insert_stream"], (name,)).lastrowid, 0)
        self._streams[name] = row
        return row[0], row[1]

    def _insert(self, rows: list[Row]) -> None:
        for start in range(0, len(rows), _ROWS_PER_INSERT):
            some = rows[start : start + _ROWS_PER_INSERT]
            self._writer.execute(_insert_statement(len(some)), [v for row in some for v in row])

    def _settle(
        self, appends: Sequence[Append], error: sqlite3.Error
    ) -> list[Appended | EventStoreError]:
        """After a failed transaction: what is in the log is done, the rest was not appended."""
        before = self._head
        try:
            self._abandon()
            head = self._refresh_head()
            since = before.position if before else head.position  # None: it did not even begin
            found = {
                row[0]: Appended(head.epoch, row[1], row[2], row[3], row[4])
                for row in self._writer.execute(SQL["select_append_ids"], (since,))
            }
        except sqlite3.Error as again:
            self._forget()
            unknown = OutcomeUnknown(f"COMMIT failed ({error}) and the log cannot be read: {again}")
            if not appends:
                raise unknown from error
            return [unknown] * len(appends)
        unavailable = LogUnavailable(f"cannot write the log ({error}): nothing was appended")
        if not appends:
            raise unavailable from error
        return [found.get(append.append_id, unavailable) for append in appends]

    def _abandon(self) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")
        self._forget()

    def _forget(self) -> None:
        self._head = None
        self._streams.clear()


_insert_statements: dict[int, str] = {}


def _insert_statement(rows: int) -> str:
    statement = _insert_statements.get(rows)
    if statement is None:
        one = "(" + ",".join("?" * _COLUMNS) + ")"
        statement = "INSERT INTO events VALUES " + ",".join([one] * rows)  # noqa: S608 - marks only
        _insert_statements[rows] = statement
    return statement
