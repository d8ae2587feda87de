"""Processes that write logs, stopped and killed, and what is waited for meanwhile."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from eventstore.errors import Conflict, LogUnavailable
from eventstore.sqlite import SQLiteLog
from eventstore.types import Append, Appended
from eventstore.writer_process import ProcessWriter
from tests.conformance.appends import append, check, whole

PATIENCE = 20.0
"""Seconds after which a test that waits for something gives up and fails."""

Answer = Appended | BaseException


@asynccontextmanager
async def written(path: Path, *, capacity: int = 20_000) -> AsyncIterator[ProcessWriter]:
    """Open a log and let a process write it; in the end, its log is sound and nothing is left."""
    log = SQLiteLog(path)
    writer = ProcessWriter(log, capacity=capacity)
    try:
        yield writer
    finally:
        await asyncio.to_thread(writer.close)
        log.close()
    assert not psutil.pid_exists(writer.pid)
    assert writer.waiting == 0
    log = SQLiteLog(path)
    check(whole(log))
    log.close()


def ask(writer: ProcessWriter, *appends: Append) -> list[asyncio.Task[Appended]]:
    """Ask for all; they leave when the event loop comes round."""
    return [asyncio.ensure_future(writer.append(wanted)) for wanted in appends]


async def answers(tasks: list[asyncio.Task[Appended]]) -> list[Answer]:
    """Return what everybody is told; fail if anybody is not."""
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    """Return as soon as a condition holds; fail if it never does."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await pause()


async def pause() -> None:
    """Give the other processes a moment."""
    await asyncio.to_thread(signal.sigtimedwait, [], 0.005)


async def goes_on(writer: ProcessWriter, stream: str = "user/afterwards") -> Appended:
    """Append as soon as that can be done again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await writer.append(append(stream))
            except LogUnavailable:
                await pause()


async def refusal(writer: ProcessWriter) -> str:
    """Return what callers hear as soon as it is known that no process can be started."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await writer.append(append("user/nobody", 9))
            except LogUnavailable as error:
                if not str(error).startswith("the log's writer ended"):
                    return str(error)
            except Conflict:
                await pause()


def stopped(writer: ProcessWriter) -> None:
    """Stop the process; return when it stands still."""
    os.kill(writer.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, writer.pid, os.WSTOPPED)


def go_on(writer: ProcessWriter) -> None:
    """Let it run again."""
    os.kill(writer.pid, signal.SIGCONT)


def end_of(pid: int) -> Callable[[float], bool]:
    """Return what waits so many seconds for the end of a process, which may be another's child."""
    handle = os.pidfd_open(pid)

    def wait(seconds: float) -> bool:
        ready, _, _ = select.select([handle], [], [], seconds)
        os.close(handle)
        return bool(ready)

    return wait


def commits(path: Path) -> int:
    """Return how many transactions are in a log's WAL that was not written over yet."""
    wal = path.with_name(path.name + "-wal").read_bytes()
    size = int.from_bytes(wal[8:12], "big")
    salts = wal[16:24]
    frames = range(32, len(wal), 24 + size)
    return sum(wal[at + 8 : at + 16] == salts and any(wal[at + 4 : at + 8]) for at in frames)


def move(path: Path, to: Path) -> None:
    """Give a file another name, which must be free."""
    assert not to.exists()
    path.rename(to)
