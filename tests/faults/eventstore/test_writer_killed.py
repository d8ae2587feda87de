"""kill -9 of a process that writes, and of the one that started it, wherever they are."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

import eventstore.children
import eventstore.writer_process
import eventstore.writer_spawn
from eventstore.errors import LogUnavailable
from eventstore.sqlite import SQLiteLog
from eventstore.sqlite_wal import ROOM
from eventstore.store import Beat
from eventstore.types import Append, Appended, Micros
from eventstore.writer_process import ProcessWriter
from tests.conformance.appends import append, event, whole
from tests.faults.eventstore.dying_child import DIES
from tests.faults.eventstore.writers import (
    PATIENCE,
    answers,
    ask,
    end_of,
    go_on,
    goes_on,
    pause,
    stopped,
    until,
    written,
)

ROUNDS = 12
CALLERS = 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


class Told(NamedTuple):
    """An append, and what its caller was told."""

    append: Append
    answer: Appended


def each_is_there_once(path: Path, told: list[Told]) -> None:
    """The log holds what callers were told, where they were told, and nothing else."""
    log = SQLiteLog(path)
    events = whole(log)
    log.close()
    assert len(events) == sum(len(each.append.events) for each in told)
    for wanted, answer in told:
        stored = events[answer.first_position - 1 : answer.last_position]
        assert [e.state for e in stored] == [e.state for e in wanted.events]
        assert {(e.append_id, e.stream, e.recorded_at) for e in stored} == {
            (wanted.append_id, wanted.stream, answer.recorded_at)
        }
        assert stored[-1].version == answer.version


async def test_under_traffic_every_append_is_told_what_is_true(path: Path) -> None:
    """What is told to be done is in the log, once; what is told not to be done can be done."""
    chance = random.Random(5)
    told: list[Told] = []
    lost = 0
    over = False

    async with written(path) as writer:

        async def caller(number: int) -> None:
            nonlocal lost
            version = 0
            while not over:
                size = chance.choice((1, 1, 3, 200))
                states = (event(f"{number}/{version + i}" + "." * 200) for i in range(size))
                wanted = append(f"user/{number}", version, *states)
                try:
                    answer = await writer.append(wanted)  # a Conflict: it had been done after all
                except LogUnavailable:
                    lost += 1
                    await pause()
                    continue
                told.append(Told(wanted, answer))
                version = answer.version

        callers = [asyncio.ensure_future(caller(number)) for number in range(CALLERS)]
        for kills in range(ROUNDS):
            enough = len(told) + chance.randrange(1, 60)
            await until(lambda enough=enough: len(told) >= enough)  # type: ignore[misc]
            os.kill(writer.pid, signal.SIGKILL)
            await until(lambda kills=kills: writer.restarts > kills)  # type: ignore[misc]
        over = True
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*callers)
        assert writer.restarts == ROUNDS
    assert lost > 0
    each_is_there_once(path, told)


@pytest.mark.parametrize("dies", ["before", "after"])
async def test_what_was_committed_but_not_answered_is_found(
    path: Path, monkeypatch: pytest.MonkeyPatch, dies: str
) -> None:
    with monkeypatch.context() as dying:
        dying.setattr(eventstore.writer_spawn, "CHILD", "tests.faults.eventstore.dying_child")
        dying.setenv(DIES, dies)
        log = SQLiteLog(path)
        writer = ProcessWriter(log)
    await writer.append(append("user/first"))
    stopped(writer)
    waiting = []
    wanted = [append(f"user/{n}", 5 if n % 10 == 0 else 0) for n in range(900)]
    for begin in (0, 300, 600):  # many messages, two transactions
        waiting += ask(writer, *wanted[begin : begin + 300])
        await asyncio.sleep(0)
    beat = asyncio.ensure_future(writer.save(Beat("node", "incarnation", "1.0", Micros(1))))
    await asyncio.sleep(0)
    go_on(writer)
    heard = await answers(waiting)
    with pytest.raises(LogUnavailable):  # it says nothing that must not be said twice
        await beat
    told = [Told(w, a) for w, a in zip(wanted, heard, strict=True) if isinstance(a, Appended)]
    assert 0 < len(told) < 810 if dies == "after" else not told, "of the first transaction"
    assert {type(a) for a in heard} <= {Appended, LogUnavailable}
    again = await goes_on(writer, "user/first-of-another")
    assert again.last_position == len(told) + 2
    events = whole(log)
    assert [e.append_id for e in events[1:-1]] == [t.append.append_id for t in told]
    assert [t.answer.last_position for t in told] == [e.position for e in events[1:-1]]
    await asyncio.to_thread(writer.close)
    log.close()


async def test_a_wal_gets_its_room_step_by_step_as_the_log_is_written(path: Path) -> None:
    steps = sorted(ROOM.items())
    wal = path.with_name("log.db-wal")
    async with written(path) as writer:
        for n in range(steps[0][0]):
            await writer.append(append(f"user/{n}"))
        await until(lambda: wal.stat().st_size >= steps[0][1])
        for n in range(steps[0][0], steps[1][0] - 1):
            await writer.append(append(f"user/{n}"))
        assert wal.stat().st_size < steps[1][1] // 2
        await writer.append(append("user/last"))
        await until(lambda: wal.stat().st_size >= steps[1][1])


async def test_a_process_that_is_killed_before_it_did_anything_is_followed_by_another(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventstore.writer_process, "RESTART_SECONDS", 0.05)
    async with written(path) as writer:
        for n in range(4):
            os.kill(writer.pid, signal.SIGKILL)
            waiting = ask(writer, append(f"user/{n}"), append(f"user/{n}/too"))
            assert {type(answer) for answer in await answers(waiting)} == {LogUnavailable}
            await until(lambda n=n: writer.restarts > n)  # type: ignore[misc]
        assert (await goes_on(writer)).last_position == 1


@pytest.mark.parametrize("rounds", [0, 1, 2, 5, 20])
@pytest.mark.parametrize("startable", [True, False])
async def test_closing_while_another_is_being_started_answers_everybody(
    path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int, *, startable: bool
) -> None:
    async with written(path) as writer:
        await writer.append(append("user/first"))
        if not startable:
            monkeypatch.setattr(eventstore.writer_spawn, "CHILD", "tests.nowhere")
        waiting = ask(writer, *(append(f"sent/{n}") for n in range(20)))
        await asyncio.sleep(0)
        os.kill(writer.pid, signal.SIGKILL)
        for n in range(rounds):
            await pause()
            waiting += ask(writer, append(f"late/{n}"))
        closing = asyncio.ensure_future(asyncio.to_thread(writer.close))
        heard = await answers(waiting)
        await closing
    assert {type(answer) for answer in heard} <= {Appended, LogUnavailable}
    log = SQLiteLog(path)
    assert log.head().position == 1 + sum(isinstance(answer, Appended) for answer in heard)
    log.close()


# -- signals for the server --------------------------------------------------------------------


async def test_signals_that_end_a_server_do_not_end_the_process_at_any_time(path: Path) -> None:
    async with written(path) as writer:
        for _ in range(30):  # from its first instruction on
            for number in eventstore.children.HELD:
                os.kill(writer.pid, number)
            await pause()
        first = writer.pid
        assert (await writer.append(append("user/ana"))).last_position == 1
        assert (writer.restarts, writer.pid) == (0, first)


SERVER = """
import asyncio, signal, sys
from pathlib import Path
from eventstore.sqlite import SQLiteLog
from eventstore.writer_process import ProcessWriter
from tests.conformance.appends import append

async def serve():
    signals = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signals.put_nowait, number)
    logs = [SQLiteLog(Path(path)) for path in sys.argv[1:]]
    writers = [ProcessWriter(log) for log in logs]
    for writer in writers:
        await writer.append(append("user/first"))
    print(*(writer.pid for writer in writers), flush=True)
    streams = iter(range(10**9))

    async def caller():
        while signals.qsize() < 2:
            number = next(streams)
            await asyncio.gather(*(writer.append(append(f"user/{number}")) for writer in writers))

    await asyncio.gather(*(caller() for _ in range(8)))
    answers = await asyncio.gather(*(w.append(append("user/last")) for w in writers))
    for writer, log in zip(writers, logs):
        writer.close()
        log.close()
    print(*(answer.last_position for answer in answers), flush=True)

asyncio.run(serve())
"""
"""Writes each log from eight tasks until it is told to end by two signals, then once more."""


class Server:
    """A server of some logs in a process group of its own."""

    def __init__(self, *logs: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, *map(str, logs)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.writers = self.hear()

    def hear(self) -> list[int]:
        """Return the numbers that it says next."""
        assert self.process.stdout is not None
        return [int(word) for word in self.process.stdout.readline().split()]

    def end(self) -> None:
        """Leave nothing of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path / "one" / "log.db", tmp_path / "two" / "log.db")


def test_signals_to_all_processes_of_a_server_let_it_finish_what_it_does(
    server: Server, tmp_path: Path
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C, and a service manager
        os.killpg(server.process.pid, number)
    last = server.hear()
    assert server.process.wait(PATIENCE) == 0
    server.end()
    assert not any(map(psutil.pid_exists, server.writers))
    for name, position in zip(("one", "two"), last, strict=True):
        log = SQLiteLog(tmp_path / name / "log.db")
        assert log.head().position == position
        assert log.stream_version(append("user/last").stream) == 1
        log.close()


async def test_a_server_that_is_killed_takes_its_processes_along_and_leaves_the_logs_free(
    server: Server, tmp_path: Path
) -> None:
    ends = [end_of(pid) for pid in server.writers]
    os.kill(server.writers[0], signal.SIGSTOP)  # it must not keep the lock for ever, either
    server.process.kill()
    async with (
        written(tmp_path / "one" / "log.db") as one,  # at once: the others may be there yet
        written(tmp_path / "two" / "log.db") as two,
    ):
        for writer in (one, two):
            assert (await writer.append(append("user/after"))).version == 1
            assert (await writer.append(append("user/after", 1))).version == 2
            assert writer.restarts == 0
        assert all([await asyncio.to_thread(end, 5.0) for end in ends])
    server.end()
