"""The server stops, crashes, turns read-only, fills up or has no connection left under traffic."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from uuid import uuid4

import psycopg
import pytest

from eventstore.errors import CursorMismatch, LogUnavailable, LogWentBack, OutcomeUnknown
from eventstore.postgres import PostgresLog
from eventstore.subscription import Subscription
from eventstore.types import Appended, NewEvent
from eventstore.writer import Writer
from tests.conformance.appends import ANA, append, check, grow, whole
from tests.faults.postgres.small_disk import SmallDisk, possible
from tests.faults.postgres.stage import HASTIEST, HASTY, SCHEMA, Stage, until
from tests.faults.postgres.traffic import Traffic
from tests.postgres import PostgresServer
from tests.postgres_home import home


@pytest.fixture
def own_stage(own_postgres: PostgresServer) -> Iterator[Stage]:
    """A log on a durable server of its own."""
    with Stage(own_postgres) as stage:
        yield stage


@pytest.mark.slow
def test_a_server_may_stop_or_crash_and_start_again_under_traffic(own_stage: Stage) -> None:
    server = own_stage.server
    ends: list[Callable[[], None]] = [server.stop, partial(server.stop, "immediate"), server.kill]
    with Traffic(own_stage.open(HASTIEST), readers=[own_stage.open()]) as traffic:
        for end in ends * 2:
            traffic.flow()
            end()
            traffic.suffer()
            server.start()
        traffic.flow()
        traffic.check_against(own_stage.truth)


@pytest.mark.slow
def test_a_server_process_may_be_killed_under_traffic(own_stage: Stage) -> None:
    """Kill -9 of one session makes PostgreSQL restart all of them."""
    with Traffic(own_stage.open(), readers=[own_stage.open()]) as traffic:
        for _ in range(3):
            traffic.flow()
            busy = [pid for pid, _, query in own_stage.sessions() if "append_1" in query]
            for process in own_stage.server.processes():
                if process.pid in busy:
                    process.kill()
        traffic.flow()
        traffic.check_against(own_stage.truth)


def test_a_log_that_was_turned_read_only_says_so_until_it_is_turned_back(
    own_stage: Stage,
) -> None:
    with Traffic(own_stage.open(), readers=[own_stage.open()]) as traffic:
        traffic.flow()
        own_stage.server.reload(default_transaction_read_only="on")
        traffic.suffer()
        assert "read-only" in str(traffic.writer.last_failure)
        own_stage.server.reload(default_transaction_read_only="off")
        traffic.flow()
        traffic.check_against(own_stage.truth)


def test_a_standby_refuses_writes_and_takes_them_when_it_is_promoted(own_stage: Stage) -> None:
    grow(own_stage.truth, [2])
    standby = own_stage.server.standby()
    log = PostgresLog(standby.at(own_stage.url), schema=SCHEMA, settings=HASTY)
    writer = Writer(log)
    with pytest.raises(LogUnavailable, match="read-only, as a standby is"):
        writer.append_blocking(append(ANA, 2))
    assert log.head().position == 2
    own_stage.server.kill()
    standby.promote()
    assert writer.append_blocking(append(ANA, 2)).version == 3
    check(whole(log))
    writer.close()
    log.close()
    standby.close()


def test_after_a_failover_to_a_standby_that_is_behind_nobody_goes_on_as_if_nothing_happened(
    own_stage: Stage,
) -> None:
    server = own_stage.server
    log = own_stage.open(HASTIEST)
    grow(log, [1, 1])
    server.stop()
    kept = server.keep_data("behind")
    server.start()
    writer = Writer(log)
    while log.head().position < 5:
        try:
            writer.append_blocking(append(ANA, log.stream_version(ANA)))
        except LogUnavailable:
            continue
    live = Subscription(log, after=log.cursor_at(log.head().position))
    cursor = log.cursor_at(log.head().position)
    idle = own_stage.open(HASTIEST)  # a node that wrote nothing, but decides on what it has read
    assert len(idle.read_stream(ANA)) == 5
    server.stop()
    server.put_back(kept)
    server.start()
    with pytest.raises(LogWentBack, match="went back"):
        writer.append_blocking(append(ANA, 5))
    with pytest.raises(CursorMismatch):
        live.poll()
    with pytest.raises(CursorMismatch):
        log.verify_cursor(cursor)
    other = own_stage.open(HASTIEST)  # another node goes on: as many events, but others
    grow(other, [1, 1, 1, 1])
    with pytest.raises(CursorMismatch):
        log.verify_cursor(cursor)
    with pytest.raises(CursorMismatch):
        live.poll()
    with pytest.raises(LogWentBack, match="went back"):
        writer.append_blocking(append(ANA, 6))
    [answer] = idle.append_batch([append(ANA, 6)])
    assert isinstance(answer, LogWentBack)
    assert own_stage.truth.head().position == 6
    writer.close()


def test_a_full_disk_is_said_to_callers_and_ends_when_there_is_room(postgres_home: None) -> None:
    if not possible():
        pytest.skip("this machine allows no user namespaces, hence no small disk")
    disk = SmallDisk()
    log = PostgresLog(disk.small_url, schema=SCHEMA, settings=HASTY)
    writer = Writer(log)
    large = NewEvent("Said", b"x" * 1_000_000)
    first = writer.append_blocking(append(ANA, 0))
    disk.fill()
    for _ in range(2):
        with pytest.raises(LogUnavailable, match=r"disk is full.*nothing was appended"):
            writer.append_blocking(append(ANA, first.version, large))
    assert log.head().position == 1
    disk.make_room()
    assert writer.append_blocking(append(ANA, first.version, large)).version == 2
    check(whole(log))
    writer.close()
    log.close()
    disk.close()


def test_files_that_may_not_grow_are_said_to_callers_until_they_may(
    own_stage: Stage,
) -> None:
    """What a quota does; needs no rights, unlike a small disk."""
    log = own_stage.open()
    writer = Writer(log)
    large = NewEvent("Said", random.Random(7).randbytes(2_000_000))
    version = writer.append_blocking(append(ANA, 0, large)).version
    limit_files(own_stage.server, "3000000")  # a segment of the write-ahead log has 2 MiB
    with pytest.raises(LogUnavailable, match=r"could not extend.*nothing was appended"):
        writer.append_blocking(append(ANA, version, large))
    assert log.head().position == 1
    limit_files(own_stage.server, "unlimited")
    assert writer.append_blocking(append(ANA, version, large)).version == 2
    check(whole(log))
    writer.close()


def limit_files(server: PostgresServer, size: str) -> None:
    """Let no file grow over `size` bytes by the hand of a process of the server."""
    for pid in (server.pid, *(process.pid for process in server.processes())):
        with suppress(AssertionError):  # one that has just ended
            home().run("prlimit", f"--pid={pid}", f"--fsize={size}:")


def test_a_commit_that_takes_too_long_is_given_up_and_the_log_recovers(stage: Stage) -> None:
    log = stage.open()
    writer = Writer(log)
    writer.append_blocking(append(ANA, 0))
    with stage.head_locked(), pytest.raises(LogUnavailable, match="another session holds it"):
        writer.append_blocking(append(ANA, 1))
    assert writer.append_blocking(append(ANA, 1)).version == 2
    check(whole(stage.truth))
    writer.close()


def test_a_commit_that_waits_for_a_missing_standby_is_not_acknowledged(own_stage: Stage) -> None:
    """It is there, but an operator who asks for two copies has only one."""
    log = own_stage.open(HASTIEST)
    own_stage.server.reload(synchronous_standby_names="*")
    answer: object = None
    for version in range(10):
        [answer] = log.append_batch([append(ANA, version)])
        if not isinstance(answer, Appended):  # the setting has come into force
            break
    assert type(answer) is OutcomeUnknown
    own_stage.server.reload(synchronous_standby_names="")
    writer = Writer(log)
    until(lambda: takes(writer))
    writer.append_blocking(append(ANA, log.stream_version(ANA)))
    check(whole(own_stage.truth))
    writer.close()


def test_a_server_without_a_connection_left_says_so_and_the_log_recovers(
    postgres_home: None,
) -> None:
    server = PostgresServer({"max_connections": "6", "superuser_reserved_connections": "0"})
    with Stage(server) as stage:
        log = stage.open(HASTIEST)
        writer = Writer(log)
        writer.append_blocking(append(ANA, 0))
        stage.proxy.cut()
        with ExitStack() as others:
            with suppress(psycopg.OperationalError):
                while True:
                    others.enter_context(psycopg.connect(server.admin_url))
            for _ in range(2):
                with pytest.raises(LogUnavailable, match="no connection left"):
                    writer.append_blocking(append(ANA, 1))
        until(lambda: takes(writer))
        check(whole(stage.truth))
        writer.close()
    server.close()


def takes(writer: Writer) -> bool:
    """Tell whether the log takes an append again."""
    try:
        writer.append_blocking(append(f"user/{uuid4().hex}", 0))
    except (LogUnavailable, OutcomeUnknown):
        return False
    return True
