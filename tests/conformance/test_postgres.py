"""What is promised of PostgreSQL only: its sessions, roles, migrations and notices."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from eventstore import postgres_appends, postgres_schema
from eventstore.errors import Conflict, LogUnavailable
from eventstore.postgres import PostgresLog, PostgresSettings, prepare
from eventstore.postgres_schema import MIGRATIONS, Migration, standing
from eventstore.store import Beat
from eventstore.subscription import Subscription
from eventstore.types import Epoch, Micros, NewEvent, Position, Snapshot, Version
from eventstore.writer import Writer
from tests.conformance.appends import ANA, BEN, append, check, event, grow, whole, write
from tests.conformance.held import PATIENCE
from tests.conformance.stores import FakeClock
from tests.postgres import Databases, with_database

BOT = "bot"
CURRENT = MIGRATIONS[-1].version


@pytest.fixture
def log(postgres_url: str) -> Iterator[PostgresLog]:
    log = PostgresLog(postgres_url, schema=BOT)
    yield log
    log.close()


@pytest.fixture
def program_url(postgres: Databases, postgres_url: str) -> str:
    """The database for the role that the program runs as, which owns nothing."""
    return postgres.role(postgres_url)


def ask(url: str, query: str) -> Any:  # noqa: ANN401 - whatever the database says
    with psycopg.connect(url, autocommit=True, options=f"-c search_path={BOT}") as bare:
        cursor = bare.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


# -- sessions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"), [("off", "on"), ("local", "on"), ("on", "on"), ("remote_apply",) * 2]
)
def test_no_session_commits_less_surely_than_to_the_disk(
    postgres: Databases, postgres_url: str, given: str, kept: str
) -> None:
    name = urlsplit(postgres_url).path[1:]
    ask(postgres_url, f"ALTER DATABASE {name} SET synchronous_commit = {given}")
    log = PostgresLog(postgres_url, schema=BOT)
    assert log._connected().execute("SHOW synchronous_commit").fetchone() == (kept,)
    log.close()


def test_sessions_wait_no_longer_than_they_are_told(postgres_url: str) -> None:
    settings = PostgresSettings(lock_timeout=0.25, statement_timeout=1.5, read_timeout=7)
    log = PostgresLog(postgres_url, schema=BOT, settings=settings)
    names = ("lock_timeout", "statement_timeout", "default_transaction_read_only")
    with log._pool.connection() as reader:
        for session, wanted in (
            (log._connected(), [("250ms",), ("1500ms",), ("off",)]),
            (reader, [("250ms",), ("7s",), ("on",)]),
        ):
            assert [session.execute(f"SHOW {name}".encode()).fetchone() for name in names] == wanted
    log.close()


def test_a_batch_of_many_callers_is_one_statement(
    log: PostgresLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(log, append(ANA))
    writer, asked = log._connected(), list[str]()
    execute: Callable[..., Any] = writer.execute

    def counting(query: str, *args: object, **options: object) -> object:
        asked.append(query)
        return execute(query, *args, **options)

    monkeypatch.setattr(writer, "execute", counting)
    answers = log.append_batch(
        [append(f"user/{n}", 0, event(keyed=f"{n}"), *[event()] * 4) for n in range(64)]
        + [append(ANA, 7), append(BEN, 0, event(keyed="3"))]
    )
    assert len(asked) == 1
    assert len(answers) == 66
    check(whole(log))


def test_a_batch_too_large_for_one_statement_is_cut_between_appends(
    log: PostgresLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_appends, "MAX_APPEND_BYTES", 1000)
    turns = [append(ANA, n, NewEvent("Said", b"." * 300)) for n in range(10)]
    write(log, *turns)
    assert [e.append_id for e in whole(log)] == [turn.append_id for turn in turns]


def test_a_reader_that_waits_is_next_however_often_others_ask(postgres_url: str) -> None:
    log = PostgresLog(postgres_url, schema=BOT, settings=PostgresSettings(pool_size=1))
    stop = threading.Event()

    def hog() -> None:
        while not stop.is_set():
            log.head()

    with ThreadPoolExecutor(3) as pool:
        hogs = [pool.submit(hog) for _ in range(3)]
        began = time.monotonic()
        for _ in range(20):
            log.head()
        took = time.monotonic() - began
        stop.set()
        for each in hogs:
            each.result()
    assert took < 2
    log.close()


def test_a_database_in_another_encoding_is_refused(postgres: Databases) -> None:
    name, options = "hilo_test_latin", "ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C'"
    postgres.execute(f"CREATE DATABASE {name} {options} TEMPLATE template0")
    with pytest.raises(LogUnavailable, match="UTF8"):
        PostgresLog(with_database(postgres.admin_url, name), schema=BOT)
    postgres.execute(f"DROP DATABASE {name}")


@pytest.mark.parametrize("name", ["", "Bot", "a b", 'a"; DROP', "pg_catalog", "x" * 49, "1a"])
def test_a_schema_is_named_so_that_nobody_misreads_it(postgres_url: str, name: str) -> None:
    with pytest.raises(ValueError, match="schema"):
        PostgresLog(postgres_url, schema=name)


def test_the_time_is_the_server_s(log: PostgresLog, postgres_url: str) -> None:
    [[before]] = ask(postgres_url, "SELECT now_micros()")
    now = log.now()
    [answer] = grow(log, [1])
    [[after]] = ask(postgres_url, "SELECT now_micros()")
    assert before - 100_000 < now < after + 100_000
    assert before < answer.recorded_at < after
    assert abs(log.skew() - (time.time_ns() // 1000 - after)) < 1_000_000


def test_a_held_clock_has_no_skew(postgres_url: str) -> None:
    log = PostgresLog(postgres_url, schema=BOT, clock=FakeClock())
    assert log.skew() == 0
    log.close()


# -- roles -----------------------------------------------------------------------------------------


def test_a_program_that_may_not_make_its_schema_says_what_to_run(
    postgres_url: str, program_url: str
) -> None:
    with pytest.raises(LogUnavailable, match="hilo store prepare"):
        PostgresLog(program_url, schema=BOT)
    role = urlsplit(program_url).username
    assert prepare(postgres_url, BOT, role=role) == CURRENT
    PostgresLog(program_url, schema=BOT).close()


def test_a_role_that_nobody_made_is_named(postgres_url: str) -> None:
    with pytest.raises(LogUnavailable, match="create the role first"):
        prepare(postgres_url, BOT, role="nobody_at_all")


@pytest.fixture
def bound(postgres_url: str, program_url: str) -> Iterator[PostgresLog]:
    """A log opened by the program's role, with an event in it."""
    for _ in range(2):  # as often as one likes
        prepare(postgres_url, BOT, role=urlsplit(program_url).username)
    log = PostgresLog(program_url, schema=BOT)
    grow(log, [3])
    yield log
    log.close()


def test_the_program_s_role_may_do_all_that_the_program_does(bound: PostgresLog) -> None:
    bound.append_batch(
        [append(BEN, 0, event(keyed="k"))],
        [Snapshot(ANA, Version(3), Epoch(1), b"shape", b"state")],
        [Beat("node", "one", "1.0", Micros(5))],
    )
    bound.append_batch([], [Snapshot(ANA, Version(3), Epoch(1), b"new", b"state")])
    assert isinstance(bound.append_batch([append(ANA, 0)])[0], Conflict)
    check(whole(bound))
    snapshot = bound.snapshot(ANA)
    assert snapshot is not None
    assert snapshot.shape == b"new"
    assert not bound.forget_node("node", "two")
    assert bound.forget_nodes(Micros(2**62)) == 1
    assert bound.size() > 0
    assert Subscription(bound).wait(0)


FORBIDDEN = [
    "UPDATE events SET state = ''",
    "DELETE FROM events",
    "TRUNCATE events",
    "DELETE FROM streams",
    "UPDATE streams SET name = 'user/mallory'",
    "DELETE FROM head",
    "UPDATE head SET epoch = epoch + 1",
    "INSERT INTO head VALUES (2, 1, 0, 0)",
    "INSERT INTO migrations VALUES (99, 'forged', 99)",
    "ALTER TABLE events DISABLE TRIGGER ALL",
    "DROP TRIGGER events_stay ON events",
    "DROP SCHEMA bot CASCADE",
    "CREATE TABLE bot.mine (x int)",
]


def test_the_program_s_role_may_not_change_the_past(bound: PostgresLog, program_url: str) -> None:
    before = whole(bound)
    for statement in FORBIDDEN:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            ask(program_url, statement)
    assert whole(bound) == before


# -- the schema's next version ---------------------------------------------------------------------

NEXT = Migration(
    CURRENT + 1,
    "notes",
    1,
    "ALTER TABLE events ADD COLUMN note text; ALTER TABLE head ADD COLUMN note text;"
    "ALTER TABLE streams ADD COLUMN note text; CREATE TABLE notes (id bigint PRIMARY KEY)",
)


def test_a_schema_moves_on_while_nodes_write_and_read(
    log: PostgresLog, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_schema, "_LOCK_SECONDS", 0.05)
    writer, stop, subscription = Writer(log), threading.Event(), Subscription(log)

    def write_on() -> float:
        version, longest = 0, 0.0
        while not stop.is_set():
            began = time.monotonic()
            version = writer.append_blocking(append(ANA, version)).version
            longest = max(longest, time.monotonic() - began)
        return longest

    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(write_on)
        with psycopg.connect(postgres_url) as reader:  # a long report
            reader.execute("SELECT count(*) FROM bot.events")
            migrating = pool.submit(prepare, postgres_url, BOT, migrations=(*MIGRATIONS, NEXT))
            reached = log.head().position
            while log.head().position < reached + 100:
                assert not migrating.done()
        assert migrating.result(PATIENCE) == CURRENT + 1
        reached = log.head().position
        while log.head().position < reached + 50:
            pass
        stop.set()
        assert writing.result(PATIENCE) < 2
    writer.close()
    everything = whole(log)
    check(everything)
    seen: list[int] = []
    while batch := subscription.poll():
        seen += [e.position for e in batch.events]
    assert seen == [e.position for e in everything]
    again = PostgresLog(postgres_url, schema=BOT)  # an old node may also start again
    grow(again, [1])
    again.close()


def test_a_schema_made_for_later_releases_is_refused(postgres_url: str) -> None:
    breaking = Migration(CURRENT + 1, "breaking", CURRENT + 1, "SELECT 1")
    prepare(postgres_url, BOT, migrations=(*MIGRATIONS, breaking))
    with pytest.raises(LogUnavailable, match="upgrade this node"):
        PostgresLog(postgres_url, schema=BOT)


def test_a_migration_that_fails_leaves_the_schema_as_it_was(postgres_url: str) -> None:
    prepare(postgres_url, BOT)
    broken = Migration(CURRENT + 1, "broken", 1, "CREATE TABLE half (x int); SELECT 1 / 0")
    with pytest.raises(LogUnavailable, match="division by zero"):
        prepare(postgres_url, BOT, migrations=(*MIGRATIONS, broken))
    with psycopg.connect(postgres_url) as bare:
        assert standing(bare, BOT) == (CURRENT, 1)
    assert ask(postgres_url, "SELECT to_regclass('bot.half')") == [(None,)]


def test_a_migration_that_never_gets_its_lock_gives_up(
    log: PostgresLog, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_schema, "_LOCK_SECONDS", 0.02)
    with psycopg.connect(postgres_url) as reader:
        reader.execute("SELECT count(*) FROM bot.events")
        with pytest.raises(LogUnavailable, match="lock timeout"):
            prepare(postgres_url, BOT, migrations=(*MIGRATIONS, NEXT), patience=0.1)
    grow(log, [1])


def test_the_migrations_are_numbered_without_a_gap() -> None:
    assert [m.version for m in MIGRATIONS] == list(range(1, CURRENT + 1))
    assert all(m.oldest <= m.version for m in MIGRATIONS)


# -- notices ---------------------------------------------------------------------------------------


def test_notices_are_few_however_many_commits_there_are(
    log: PostgresLog, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as listener:
        listener.execute("LISTEN hilo_bot")
        began = time.monotonic()
        grow(log, [1] * 100)
        heard: list[str] = []
        while not heard or heard[-1] != "100":
            heard += [n.payload for n in listener.notifies(timeout=PATIENCE, stop_after=1)]
        took = time.monotonic() - began
    assert len(heard) <= took / 0.01 + 2
    assert heard == sorted(heard, key=int)


def test_a_subscriber_that_is_told_nothing_looks_by_itself(
    log: PostgresLog, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = PostgresSettings(fallback_seconds=0.1)
    other = PostgresLog(postgres_url, schema=BOT, settings=settings)
    subscription = Subscription(other)
    assert subscription.wait(PATIENCE)
    monkeypatch.setattr(log._notifier, "tell", lambda _: None)
    grow(log, [1])
    assert subscription.wait(PATIENCE)
    assert subscription.poll() is not None
    assert not subscription.wait(0)
    other.close()


def test_a_listener_whose_session_was_ended_listens_again(
    log: PostgresLog, postgres_url: str
) -> None:
    settings = PostgresSettings(fallback_seconds=600)
    other = PostgresLog(postgres_url, schema=BOT, settings=settings)
    watch = other.watch()
    listeners = "FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"
    for n in range(3):
        while not ask(postgres_url, f"SELECT pid {listeners}"):
            pass
        while watch.wait(0.05):
            pass
        grow(log, [1])
        assert watch.wait(PATIENCE), n
        ask(postgres_url, f"SELECT pg_terminate_backend(pid, 5000) {listeners}")
    assert log.head().position == Position(3)
    other.close()
