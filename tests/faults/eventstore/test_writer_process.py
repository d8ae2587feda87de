"""A process that writes: stopped, locked out, on a full disk, under more than sockets hold."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
from pathlib import Path

import psutil
import pytest

import eventstore.lasting
import eventstore.writer_process
import eventstore.writer_spawn
from eventstore.errors import Conflict, LogUnavailable, OutcomeUnknown
from eventstore.places import DatabaseFiles
from eventstore.sqlite import connect
from eventstore.types import Appended, NewEvent
from tests.conformance.appends import append, event
from tests.faults.eventstore.writers import (
    answers,
    ask,
    commits,
    go_on,
    goes_on,
    move,
    pause,
    refusal,
    stopped,
    until,
    written,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


async def test_whatever_waits_is_one_transaction(path: Path) -> None:
    async with written(path) as writer:
        await writer.append(append("user/first"))
        before = commits(path)
        stopped(writer)
        waiting = []
        for n in range(30):
            waiting += ask(writer, *(append(f"user/{n}/{i}") for i in range(10)))
            await asyncio.sleep(0)
        assert writer.waiting == 300
        go_on(writer)
        assert all(isinstance(answer, Appended) for answer in await answers(waiting))
        assert commits(path) - before <= 2


async def test_while_the_process_stands_still_appends_wait_and_it_shows(path: Path) -> None:
    async with written(path) as writer:
        await writer.append(append("user/first"))
        assert writer.busy_seconds == 0
        stopped(writer)
        waiting = ask(writer, *(append(f"user/{n}") for n in range(20)))
        await until(lambda: writer.busy_seconds > 0.05)
        assert not any(task.done() for task in waiting)
        assert writer.waiting == 20
        assert writer.last_failure is None
        go_on(writer)
        assert all(isinstance(answer, Appended) for answer in await answers(waiting))
        assert (writer.waiting, writer.busy_seconds) == (0, 0)


async def test_more_than_sockets_hold_in_both_directions_is_answered(path: Path) -> None:
    """Neither end may wait for the other to read: the answers alone fill a socket here."""
    async with written(path) as writer:
        await writer.append(append("user/first"))
        stopped(writer)
        waiting = ask(writer, *(append("user/nobody", 7) for _ in range(8000)))
        await asyncio.sleep(0)
        state = b"." * 10_000
        for n in range(3):
            events = (NewEvent("Said", state),)
            waiting += ask(writer, *(append(f"user/{n}/{i}", 0, *events) for i in range(1000)))
            await asyncio.sleep(0)
        go_on(writer)
        heard = await answers(waiting)
        assert [type(a) for a in heard] == [Conflict] * 8000 + [Appended] * 3000


@pytest.mark.parametrize("elsewhere", [True, False])
async def test_closing_answers_more_than_sockets_hold(path: Path, *, elsewhere: bool) -> None:
    async with written(path) as writer:
        await writer.append(append("user/first"))
        stopped(writer)
        waiting = ask(writer, *(append("user/nobody", 7) for _ in range(8000)))
        await asyncio.sleep(0)
        state = b"." * 10_000
        waiting += ask(
            writer, *(append(f"user/{i}", 0, NewEvent("Said", state)) for i in range(500))
        )
        await asyncio.sleep(0)
        go_on(writer)
        async with asyncio.timeout(20):
            await asyncio.to_thread(writer.close) if elsewhere else writer.close()
        heard = await answers(waiting)
        assert [type(a) for a in heard] == [Conflict] * 8000 + [Appended] * 500


async def test_closing_does_not_wait_for_ever_for_a_process_that_stands_still(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventstore.writer_process, "END_SECONDS", 0.1)
    async with written(path) as writer:
        await writer.append(append("user/first"))
        stopped(writer)
        waiting = ask(writer, *(append(f"user/{n}") for n in range(20)))
        await asyncio.sleep(0)
        await asyncio.to_thread(writer.close)
        heard = await answers(waiting)
        assert {type(answer) for answer in heard} == {LogUnavailable}


async def test_another_s_lock_fails_appends_until_it_is_gone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventstore.writer_spawn, "CHILD", "tests.faults.eventstore.hasty_child")
    async with written(path) as writer:
        await writer.append(append("user/first"))
        other = connect(f"file:{path}")
        other.execute("BEGIN IMMEDIATE")
        heard = await answers(ask(writer, append("user/a"), append("user/b")))
        assert [type(a) for a in heard] == [LogUnavailable] * 2
        assert "locked" in str(heard[0])
        assert isinstance(writer.last_failure, LogUnavailable)
        other.execute("ROLLBACK")
        other.close()
        assert (await writer.append(append("user/a"))).last_position == 2
        assert vars(writer)["last_failure"] is None
        assert writer.restarts == 0


async def test_on_a_full_disk_nothing_is_appended_until_there_is_room(path: Path) -> None:
    async with written(path) as writer:
        await writer.append(append("user/first"))
        _, most = resource.prlimit(writer.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, (0, most))
        for _ in range(2):
            heard = await answers(ask(writer, append("user/a"), append("user/b", 3)))
            assert isinstance(heard[0], LogUnavailable)
            assert "nothing was appended" in str(heard[0])
            assert isinstance(writer.last_failure, LogUnavailable)
        resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, (most, most))
        assert (await writer.append(append("user/a"))).last_position == 2
        assert (writer.last_failure, writer.restarts) == (None, 0)


async def test_each_log_has_a_process_of_its_own(tmp_path: Path) -> None:
    async with (
        written(tmp_path / "one" / "log.db") as one,
        written(tmp_path / "two" / "log.db") as two,
    ):
        await asyncio.gather(one.append(append("user/ana")), two.append(append("user/ana")))
        stopped(one)
        waiting = ask(one, append("user/ben"))
        for n in range(20):
            await two.append(append("user/ben", n))
        psutil.Process(two.pid).kill()
        await goes_on(two)
        assert not waiting[0].done()
        go_on(one)
        assert isinstance((await answers(waiting))[0], Appended)
        assert (one.restarts, two.restarts) == (0, 1)


# -- it cannot be started ----------------------------------------------------------------------


async def test_a_program_that_is_not_there_is_told_to_whoever_opens_the_log(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(LogUnavailable, match="/nowhere/python"):
        async with written(path):
            pass


@pytest.mark.parametrize(
    ("missing", "missing_as"), [("program", "/nowhere/python"), ("module", "exit code 1")]
)
async def test_what_cannot_be_started_is_tried_again_until_it_can(
    path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, missing_as: str
) -> None:
    monkeypatch.setattr(eventstore.writer_process, "RESTART_SECONDS", 0.05)
    async with written(path) as writer:
        await writer.append(append("user/first"))
        with monkeypatch.context() as broken:
            if missing == "program":
                broken.setattr("sys.executable", "/nowhere/python")
            else:
                broken.setattr(eventstore.writer_spawn, "CHILD", "tests.nowhere")
            psutil.Process(writer.pid).kill()
            waiting = ask(writer, *(append(f"user/{n}") for n in range(5)))
            heard = await answers(waiting)
            assert {type(a) for a in heard} <= {LogUnavailable, Appended}
            assert missing_as in await refusal(writer)
            assert isinstance(writer.last_failure, LogUnavailable)
        done = await goes_on(writer)
        assert done.version == 1
        assert writer.last_failure is None


@pytest.mark.parametrize("missing", ["program", "module"])
async def test_what_cannot_be_started_for_long_is_said_once_and_once_when_it_is_well_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    caplog.set_level("INFO", "eventstore.writer_process")
    monkeypatch.setattr(eventstore.writer_process, "RESTART_SECONDS", 0.02)
    monkeypatch.setattr(eventstore.lasting, "FIRST_SECONDS", 3600.0)
    async with written(path) as writer:
        await writer.append(append("user/first"))
        tries = []
        start = eventstore.writer_spawn.spawn
        with monkeypatch.context() as broken:
            if missing == "program":
                broken.setattr("sys.executable", "/nowhere/python")
            else:
                broken.setattr(eventstore.writer_spawn, "CHILD", "tests.nowhere")

            def counted(path: Path, files: DatabaseFiles | None, *, says: bool) -> object:
                tries.append(files)
                return start(path, files, says=says)

            broken.setattr("eventstore.writer_process.spawn", counted)
            psutil.Process(writer.pid).kill()
            await until(lambda: len(tries) > 5)
        await goes_on(writer)
        said = [record.message for record in caplog.records]
        assert sum("LOG_WRITER_LOST" in line for line in said) == 2, said  # killed; not started
        assert sum("LOG_WRITER_BACK" in line for line in said) == 1


@pytest.mark.parametrize("killed", [True, False])
async def test_nothing_is_written_to_a_log_that_was_moved_away_nor_is_another_made(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, killed: bool
) -> None:
    monkeypatch.setattr(eventstore.writer_process, "RESTART_SECONDS", 0.05)
    async with written(path) as writer:
        await writer.append(append("user/first"))
        move(path, kept := path.with_name("kept.db"))
        if killed:
            psutil.Process(writer.pid).kill()
        else:
            with pytest.raises((LogUnavailable, OutcomeUnknown)):
                await writer.append(append("user/second"))
        for _ in range(3):
            assert "not the file that it was" in await refusal(writer)
            await pause()
        move(kept, path)  # there is nothing in its way
        assert (await goes_on(writer)).last_position in {2, 3}  # 3: it was being written


async def test_a_log_that_is_damaged_meanwhile_is_told_and_goes_on_when_it_is_mended(
    path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(eventstore.writer_process, "RESTART_SECONDS", 0.05)
    monkeypatch.setattr(eventstore.lasting, "FIRST_SECONDS", 3600.0)
    async with written(path) as writer:
        await writer.append(append("user/first", 0, event(), event()))
        bare = sqlite3.connect(path)
        assert bare.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        bare.close()
        file = os.open(path, os.O_RDWR)
        header = os.pread(file, 100, 0)
        os.pwrite(file, b"x" * 100, 0)
        psutil.Process(writer.pid).kill()
        await until(lambda: writer.last_failure is not None)
        assert "see its error output" in await refusal(writer)
        first = writer.restarts
        await until(lambda: writer.restarts > first + 4)
        assert capfd.readouterr().err.count("not a database") == 1
        os.pwrite(file, header, 0)
        assert (await goes_on(writer)).last_position == 3
        os.close(file)
