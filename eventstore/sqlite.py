"""The log on SQLite: one file, one writer at a time, any number of readers.

WAL with `synchronous=FULL`: COMMIT returns when the events are on the disk. The database itself
refuses UPDATE, DELETE, REPLACE and a gap (triggers in `sql/sqlite.sql`). Versions, epochs and
keys are checked inside the transaction that inserts, `BEGIN IMMEDIATE`, so that any process
may append: the server, and the command line beside it.

Rows of a batch go in as multi-row INSERTs. Python's `sqlite3` gives up the interpreter lock at
every statement and must win it back from a busy event loop, so few statements matter more than
small ones (`docs/decisions/0003-few-statements-a-commit.md`).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from eventsourcing.persistence import ConnectionPoolClosedError, InterfaceError, PersistenceError
from eventsourcing.sqlite import SQLiteConnection, SQLiteConnectionPool, SQLiteDatastore

from eventstore import sql
from eventstore.errors import (
    AppendRejected,
    Conflict,
    CursorMismatch,
    DuplicateKey,
    EpochMismatch,
    EventStoreError,
    LogUnavailable,
    OutcomeUnknown,
)
from eventstore.integrity import leaf_hash
from eventstore.store import Beat, StreamInfo
from eventstore.types import (
    MAX_EVENTS_PER_APPEND,
    MAX_STATE_BYTES,
    Append,
    Appended,
    Clock,
    Cursor,
    Epoch,
    Head,
    IdempotencyKey,
    Micros,
    Position,
    Recorded,
    Snapshot,
    StreamName,
    Version,
)

SQL: Final = sql.load("sqlite.sql")
_COLUMNS = 8
_ID_BYTES = 16
_ROWS_PER_INSERT = 128
_KEYS_PER_SELECT = 500
_STREAM_CACHE = 20_000
_BUSY_SECONDS = 10
_BEFORE_POSITIONS: Final = Position(0)
_BEFORE_VERSIONS: Final = Version(0)
_END: Final = Position(2**63 - 1)

Row = tuple[int, int, int, str, int, bytes | None, bytes, bytes]


def system_clock() -> Micros:
    """Return this machine's time: the store's clock of an embedded log."""
    return Micros(time.time_ns() // 1000)


def connect(database: str, *, busy_seconds: float = _BUSY_SECONDS) -> sqlite3.Connection:
    """Open a connection that keeps the log's rules; `database` is a `file:` URI.

    Only the server's writer checkpoints, so that nobody else ever waits for one.
    """
    connection = sqlite3.connect(
        database,
        uri=True,
        timeout=busy_seconds,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        _use_wal(connection, time.monotonic() + busy_seconds)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA recursive_triggers=ON")
        connection.execute("PRAGMA wal_autocheckpoint=0")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection, deadline: float) -> None:
    """Make a new file a WAL file. SQLite does not wait for others who do the same: we do."""
    while connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete":
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


class LogConnectionPool(SQLiteConnectionPool):
    """The library's pool over `connect`: its own connections cache one statement only."""

    def _create_connection(self) -> SQLiteConnection:
        try:
            connection = connect(self.db_name, busy_seconds=self.lock_timeout or _BUSY_SECONDS)
        except sqlite3.Error as error:
            raise InterfaceError(error) from error
        connection.row_factory = sqlite3.Row
        return SQLiteConnection(sqlite_conn=connection, max_age=self.max_age)


class LogDatastore(SQLiteDatastore):
    """The library's datastore over `LogConnectionPool`."""

    def __init__(self, db_name: str, **options: Any) -> None:  # noqa: ANN401 - the library's signature
        """Take the library's options unchanged."""
        super().__init__(db_name, **options)
        self.pool.close()
        self.pool = LogConnectionPool(
            db_name=db_name,
            lock_timeout=options.get("lock_timeout") or _BUSY_SECONDS,
            pool_size=options.get("pool_size", 5),
            max_overflow=options.get("max_overflow", 10),
            pool_timeout=options.get("pool_timeout", 5.0),
            max_age=options.get("max_age"),
            pre_ping=options.get("pre_ping", False),
        )


class _Planned:
    """What one batch will insert, and what its callers will hear once it is durable."""

    __slots__ = ("answers", "position", "recorded_at", "refused", "rows")

    def __init__(self, head: Head) -> None:
        self.rows: list[Row] = []
        self.answers: list[Appended | EventStoreError] = []
        self.position: int = head.position
        self.recorded_at: int = head.recorded_at
        self.refused = False


class SQLiteLog:
    """A `LogStore` in one SQLite file.

    `append_batch` belongs to one thread at a time; everything else is safe from any thread.
    `server` says that this process owns the file's WAL and checkpoints it.
    """

    def __init__(self, path: Path, *, clock: Clock = system_clock, server: bool = False) -> None:
        """Open or create the log. Raises `LogUnavailable` if the file cannot be used."""
        self.path = path
        self._clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            database = f"file:{quote(str(path.resolve()))}"
            self.datastore = LogDatastore(database)
            self._writer = connect(database)
            self._watcher = connect(database)
            if server:
                self._writer.execute("PRAGMA wal_autocheckpoint=4000")
            if not self._has_schema():
                self._writer.executescript("BEGIN IMMEDIATE;" + SQL["schema"] + "COMMIT;")
        except (sqlite3.Error, PersistenceError) as error:
            msg = f"cannot open the log at {path}: {error}"
            raise LogUnavailable(msg) from error
        self._watch_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._head: Head | None = None
        self._streams: dict[StreamName, tuple[int, int]] = {}
        self._watched = 0

    def _has_schema(self) -> bool:
        query = "SELECT count(*) FROM sqlite_master WHERE name = 'streams_no_rename'"
        return bool(self._writer.execute(query).fetchone()[0])

    # -- appending -------------------------------------------------------------------------

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
            now = self._clock()
            execute(SQL["upsert_node"], (b.node, b.incarnation, b.release, b.started_at, now))
        execute("COMMIT")
        self._head = Head(known.epoch, Position(plan.position), Micros(plan.recorded_at))
        if len(self._streams) > _STREAM_CACHE:  # never within a plan: it holds versions to come
            self._streams.clear()
        return plan.answers

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
            recorded_at = max(self._clock(), plan.recorded_at + 1)
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
        fault = _fault(append)
        if fault is not None:
            return AppendRejected(fault)
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

    # -- reading ---------------------------------------------------------------------------

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Cursor]:
        try:
            with self.datastore.get_connection(commit=False) as connection:
                cursor = connection.cursor().sqlite_cursor
                cursor.row_factory = None
                try:
                    yield cursor
                finally:
                    cursor.close()
        except (sqlite3.Error, PersistenceError, ConnectionPoolClosedError) as error:
            msg = f"the log at {self.path} cannot be read: {error}"
            raise LogUnavailable(msg) from error

    def now(self) -> Micros:
        """Return the store's time."""
        return self._clock()

    def head(self) -> Head:
        """Return where the log ends now."""
        with self._read() as cursor:
            return Head(*cursor.execute(SQL["select_head"]).fetchone())

    def stream_version(self, stream: StreamName) -> Version:
        """Return the stream's version; 0 if there is no such stream."""
        with self._read() as cursor:
            row = cursor.execute(SQL["select_stream"], (stream,)).fetchone()
        return Version(row[1] if row else 0)

    def read_stream(
        self,
        stream: StreamName,
        *,
        after: Version = _BEFORE_VERSIONS,
        up_to: Version | None = None,
        limit: int | None = None,
    ) -> list[Recorded]:
        """Return events of one stream with `after < version <= up_to`, oldest first."""
        end = _END if up_to is None else up_to
        with self._read() as cursor:
            rows = cursor.execute(
                SQL["read_stream"], (stream, after, end, -1 if limit is None else limit)
            ).fetchall()
        return [Recorded(r[0], stream, *r[1:]) for r in rows]

    def read(
        self,
        *,
        after: Position = _BEFORE_POSITIONS,
        up_to: Position | None = None,
        limit: int = 1000,
        types: Sequence[str] | None = None,
    ) -> list[Recorded]:
        """Return about `limit` events, oldest first; a page never splits an append."""
        with self._read() as cursor:
            rows: list[Any] = self._page(cursor, after, up_to, limit, types)
        return [Recorded(*row) for row in rows]

    def read_rows(
        self,
        *,
        after: Position = _BEFORE_POSITIONS,
        up_to: Position | None = None,
        limit: int = 1000,
        types: Sequence[str] | None = None,
    ) -> list[tuple[int, str, int, str, int, bytes | None, bytes, bytes]]:
        """Return what `read` returns as plain tuples in the order of `Recorded`'s fields."""
        with self._read() as cursor:
            return self._page(cursor, after, up_to, limit, types)

    def scan(
        self, *, after: Position, up_to: Position, types: Sequence[str]
    ) -> list[tuple[int, int, str, int, bytes]]:
        """Return events of some types with `after < position <= up_to`, oldest first.

        As (position, number of the stream, type, recorded_at, state): without the join that
        `read_rows` makes, and the columns that a read model does not look at, it reads 1.6 times
        as fast. `stream_names` tells what the numbers stand for.
        """
        query = SQL["scan_types"].replace("/*types*/", ",".join("?" * len(types)))
        with self._read() as cursor:
            return cursor.execute(query, (after, up_to, *types)).fetchall()

    def stream_names(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return the names of streams by their numbers; both are for ever."""
        with self._read() as cursor:
            wanted = "[" + ",".join(map(str, numbers)) + "]"
            return dict(cursor.execute(SQL["select_stream_names"], (wanted,)).fetchall())

    def _page(
        self,
        cursor: sqlite3.Cursor,
        after: Position,
        up_to: Position | None,
        limit: int,
        types: Sequence[str] | None,
    ) -> list[tuple[int, str, int, str, int, bytes | None, bytes, bytes]]:
        end: int = _END if up_to is None else up_to
        query = SQL["read_all"]
        extra: tuple[str, ...] = ()
        if types is not None:
            query = SQL["read_types"].replace("/*types*/", ",".join("?" * len(types)))
            extra = tuple(types)
        rows = cursor.execute(query, (after, end, *extra, limit)).fetchall()
        if rows and len(rows) == limit:
            last = cursor.execute(SQL["last_of_append"], (rows[-1][0],)).fetchone()[0]
            if last > rows[-1][0]:
                rest = (rows[-1][0], min(last, end), *extra, -1)
                rows += cursor.execute(query, rest).fetchall()
        return rows

    def event_at(self, position: Position) -> Recorded | None:
        """Return the event at a position, if the log reaches that far."""
        return self._one("read_position", position)

    def event_by_key(self, key: IdempotencyKey) -> Recorded | None:
        """Return the event that holds an idempotency key."""
        return self._one("read_key", key)

    def _one(self, query: str, value: Position | IdempotencyKey) -> Recorded | None:
        with self._read() as cursor:
            row = cursor.execute(SQL[query], (value,)).fetchone()
        return None if row is None else Recorded(*row)

    def position_at(self, instant: Micros) -> Position:
        """Return the last position recorded at or before the instant; 0 if none.

        Times never decrease along the log, so a binary search needs no index.
        """
        with self._read() as cursor:
            low, high = 0, cursor.execute(SQL["select_head"]).fetchone()[1]
            while low < high:
                middle = (low + high + 1) // 2
                if cursor.execute(SQL["select_time"], (middle,)).fetchone()[0] <= instant:
                    low = middle
                else:
                    high = middle - 1
        return Position(low)

    def streams(self, prefix: str = "") -> Iterator[StreamInfo]:
        """Yield the streams whose names start with `prefix`, oldest first, in pages."""
        last = 0
        while True:
            with self._read() as cursor:
                rows = cursor.execute(
                    SQL["list_streams"], (last, prefix, prefix + "\U0010ffff", 1000)
                ).fetchall()
            if not rows:
                return
            for stream_id, name, version in rows:
                last = stream_id
                yield StreamInfo(StreamName(name), Version(version))

    def count_by_type(self) -> dict[str, int]:
        """Return how many events of each stored type there are."""
        with self._read() as cursor:
            return dict(cursor.execute(SQL["count_types"]).fetchall())

    def cursor_at(self, position: Position) -> Cursor:
        """Return a cursor at a position, with its leaf hash."""
        epoch = self.head().epoch
        if position == 0:
            return Cursor(epoch, position, b"")
        event = self.event_at(position)
        if event is None:
            raise CursorMismatch(position, "the log ends before it")
        return Cursor(epoch, position, leaf_hash(event))

    def verify_cursor(self, cursor: Cursor) -> None:
        """Raise `CursorMismatch` unless the log still holds what the cursor was taken from."""
        now = self.cursor_at(cursor.position)
        if now.epoch != cursor.epoch:
            raise CursorMismatch(cursor.position, f"epoch {now.epoch}, not {cursor.epoch}")
        if now.leaf != cursor.leaf:
            raise CursorMismatch(cursor.position, "another event stands there")

    def snapshot(self, stream: StreamName) -> Snapshot | None:
        """Return the stream's snapshot, if one fits this epoch and is not above the head."""
        with self._read() as cursor:
            row = cursor.execute(SQL["select_snapshot"], (stream,)).fetchone()
        return None if row is None else Snapshot(stream, *row)

    def nodes(self) -> list[Beat]:
        """Return every node that ever beat."""
        with self._read() as cursor:
            return [Beat(*row) for row in cursor.execute(SQL["select_nodes"]).fetchall()]

    def change_counter(self) -> int:
        """Return a number that changes when another connection or process has committed."""
        with self._watch_lock:
            try:
                return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])
            except sqlite3.Error as error:
                msg = f"the log at {self.path} cannot be read: {error}"
                raise LogUnavailable(msg) from error

    def close(self) -> None:
        """Close every connection. Idempotent."""
        with self._write_lock, self._watch_lock:
            self._writer.close()
            self._watcher.close()
        self.datastore.close()


def _fault(append: Append) -> str | None:
    """Say what is wrong with the append itself, whatever the log holds."""
    if not 0 < len(append.events) <= MAX_EVENTS_PER_APPEND:
        return f"an append holds 1 to {MAX_EVENTS_PER_APPEND} events, not {len(append.events)}"
    if len(append.append_id) != _ID_BYTES or not _is_name(append.stream):
        return f"an append names its stream and has an id of {_ID_BYTES} bytes"
    keys = 0
    for event in append.events:
        if len(event.state) > MAX_STATE_BYTES:
            return f"a state of {len(event.state)} bytes is over the limit of {MAX_STATE_BYTES}"
        if not _is_name(event.type):
            return "an event has a type"
        keys += event.key is not None
    if keys > 1 and len({event.key for event in append.events} - {None}) < keys:
        return "two events of one append have the same key"
    return None


def _is_name(text: str) -> bool:
    if text.isascii():
        return text != ""
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can carry and no database can
        return False
    return True


_insert_statements: dict[int, str] = {}


def _insert_statement(rows: int) -> str:
    statement = _insert_statements.get(rows)
    if statement is None:
        one = "(" + ",".join("?" * _COLUMNS) + ")"
        statement = "INSERT INTO events VALUES " + ",".join([one] * rows)  # noqa: S608 - marks only
        _insert_statements[rows] = statement
    return statement


__all__ = ["LogDatastore", "SQLiteLog", "system_clock"]
