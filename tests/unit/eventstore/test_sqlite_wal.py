"""Room for a log's WAL is made beside whoever writes the log, and harms nothing in it."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventstore.sqlite import SQLiteLog
from eventstore.sqlite_wal import reserve
from tests.conformance.appends import append, check, event, whole, write

MEGABYTE = 1024 * 1024
PATIENCE = 30.0

WRITES = """
import sys
from pathlib import Path
from eventstore.sqlite import SQLiteLog
from tests.conformance.appends import append, event, write

log = SQLiteLog(Path(sys.argv[1]), server=True)
n = 0
while True:
    answers = write(log, *(append(f"user/{n}/{i}", 0, event("." * 500)) for i in range(20)))
    n += 1
    print(answers[-1].last_position, flush=True)
"""
"""Writes for ever, and says how far it has come."""


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SQLiteLog]:
    log = SQLiteLog(tmp_path / "log.db", server=True)
    write(log, append("user/ana"))
    yield log
    log.close()


def wal(log: SQLiteLog) -> Path:
    return log.path.with_name("log.db-wal")


def test_room_is_made_up_to_the_size(log: SQLiteLog) -> None:
    frames = wal(log).read_bytes()
    reserve(log.path, 3 * MEGABYTE)
    length = wal(log).stat().st_size
    assert 3 * MEGABYTE <= length < 4 * MEGABYTE
    assert wal(log).read_bytes() == frames.ljust(length, b"\0")
    write(log, append("user/ben"))
    assert wal(log).stat().st_size == length  # what is written goes into it
    assert len(whole(log)) == 2


def test_room_that_is_there_is_left_as_it_is(log: SQLiteLog) -> None:
    reserve(log.path, 2 * MEGABYTE)
    write(log, append("user/ben"))
    before = wal(log).stat()
    frames = wal(log).read_bytes()
    reserve(log.path, MEGABYTE)
    assert wal(log).stat().st_mtime_ns == before.st_mtime_ns
    assert wal(log).read_bytes() == frames


def test_a_new_file_finds_its_log_again_after_a_crash(tmp_path: Path, log: SQLiteLog) -> None:
    for n in range(50):
        write(log, append(f"user/{n}", 0, event("x" * 100)))
        reserve(log.path, (1 + n // 10) * MEGABYTE)
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for name in ("log.db", "log.db-wal"):  # as a power cut leaves them: -shm is made anew
        (crashed / name).write_bytes((tmp_path / name).read_bytes())
    assert (crashed / "log.db-wal").stat().st_size > 5 * MEGABYTE
    found = SQLiteLog(crashed / "log.db")
    assert whole(found) == whole(log)
    found.close()


def test_room_is_made_while_a_process_writes_that_is_killed_then(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with subprocess.Popen(
        [sys.executable, "-c", WRITES, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        told = [int(writer.stdout.readline())]
        making = threading.Thread(target=reserve, args=(path, 16 * MEGABYTE))
        making.start()
        while making.is_alive() or len(told) < 50:
            told.append(int(writer.stdout.readline()))
        making.join()
        writer.send_signal(signal.SIGKILL)
        told += map(int, writer.stdout.read().splitlines())
    assert path.with_name("log.db-wal").stat().st_size >= 16 * MEGABYTE
    log = SQLiteLog(path)
    events = whole(log)
    log.close()
    check(events)
    assert len(events) >= told[-1]
    bare = sqlite3.connect(path)
    assert bare.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    bare.close()


def test_no_room_is_taken_from_a_disk_that_has_little(log: SQLiteLog) -> None:
    disk = os.statvfs(log.path)
    length = wal(log).stat().st_size
    reserve(log.path, disk.f_bavail * disk.f_frsize // 8)
    assert wal(log).stat().st_size == length


def test_where_no_room_can_be_made_it_is_said_and_the_log_goes_on(
    log: SQLiteLog, caplog: pytest.LogCaptureFixture
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEGABYTE, before[1]))
    try:
        reserve(log.path, 2 * MEGABYTE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "WAL_NOT_RESERVED: File too large" in caplog.text
    write(log, append("user/ben"))
    assert len(whole(log)) == 2


def test_a_log_without_a_wal_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reserve(tmp_path / "log.db", MEGABYTE)
    assert "WAL_NOT_RESERVED: No such file" in caplog.text
    assert not [*tmp_path.iterdir()]
