"""The log's files are taken away under the process that writes: what was acknowledged stays."""

from __future__ import annotations

import math
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

import eventstore.writer_process
from eventstore.errors import LogUnavailable, OutcomeUnknown
from eventstore.sqlite import SQLiteLog
from eventstore.sqlite_place import Moved, Place, SQLiteWriter
from eventstore.writer_process import _Sent
from eventstore.writer_wire import MOVED, NOT_OPENED, Batch
from tests.conformance.appends import append
from tests.faults.eventstore.writers import move, pause, refusal, written


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.mark.parametrize("deleted", [True, False])
async def test_a_wal_that_is_taken_away_takes_nothing_with_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, deleted: bool
) -> None:
    monkeypatch.setattr(eventstore.writer_process, "RESTART_SECONDS", 0.05)
    wal = path.with_name(f"{path.name}-wal")
    async with written(path) as writer:
        for number in range(100):
            done = await writer.append(append(f"user/{number}"))
        if deleted:
            wal.unlink()
        else:
            move(wal, tmp_path / "kept")
        with suppress(LogUnavailable):
            done = await writer.append(append("user/last"))
        for _ in range(3):
            assert "start the server anew" in await refusal(writer)
            await pause()
        (alone := tmp_path / "alone").mkdir()
        shutil.copy(path, alone)
        log = SQLiteLog(alone / path.name)
        assert log.head().position == done.last_position
        log.close()


@pytest.mark.parametrize("gone", ["", "-wal", "-shm"])
def test_nobody_is_told_that_it_is_durable_in_a_file_that_was_moved_meanwhile(
    path: Path, tmp_path: Path, gone: str
) -> None:
    log = SQLiteLog(path, server=True)
    log.append_batch([append("user/first")])
    place = Place(log)
    place.check()
    log.append_batch([append("user/second")])
    assert not place.confirm()
    move(Path(f"{path}{gone}"), tmp_path / "kept")
    place.check()  # it looked a moment ago
    log.append_batch([append("user/third")])
    if gone == "-wal":
        assert place.confirm()
        assert b"user/third" in path.read_bytes()
        code = NOT_OPENED
    else:
        with pytest.raises(Moved, match="not the file that it was") as moved:
            place.confirm()
        assert moved.value.code == MOVED
        code = NOT_OPENED
    with pytest.raises(Moved) as moved:
        place.check()
    assert moved.value.code == code
    move(tmp_path / "kept", Path(f"{path}{gone}"))
    log.close()


async def test_what_was_written_to_a_moved_log_has_no_known_outcome(path: Path) -> None:
    async with written(path) as writer:
        await writer.append(append("user/first"))
        batch = Batch([append("user/second")])
        sent = [_Sent(batch, [lambda _: None], 0.0)]
        for code, kind in ((MOVED, OutcomeUnknown), (NOT_OPENED, LogUnavailable)):
            ((_, answer),) = writer._settled(sent, code)
            assert type(answer) is kind


@pytest.mark.parametrize("gone", ["", "-wal", "-shm"])
async def test_a_thread_that_writes_looks_after_its_files_as_a_process_does(
    path: Path, tmp_path: Path, gone: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    log = SQLiteLog(path, server=True)
    writer = SQLiteWriter(log)
    await writer.append(append("user/first"))
    writer._place._until = 0  # it looked some time ago
    move(Path(f"{path}{gone}"), tmp_path / "kept")
    for _ in range(2):
        with pytest.raises(LogUnavailable, match="is not the file that it was"):
            await writer.append(append("user/second"))
        assert isinstance(writer.last_failure, LogUnavailable)
    move(tmp_path / "kept", Path(f"{path}{gone}"))
    await writer.append(append("user/second"))
    assert writer.last_failure is None
    assert log.head().position == 2
    assert [r.message.partition(":")[0].partition(" ")[0] for r in caplog.records] == [
        "LOG_WRITER_FAILED",
        "LOG_WRITER_BACK",
    ]
    writer.close()
    log.close()


@pytest.mark.parametrize("stranger", [True, False])
def test_who_reads_while_the_log_is_away_neither_makes_one_nor_keeps_a_strangers(
    path: Path, tmp_path: Path, *, stranger: bool
) -> None:
    log = SQLiteLog(path)
    log.append_batch([append("user/first")])
    names = [name for name in ("log.db", "log.db-wal", "log.db-shm") if (tmp_path / name).exists()]
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in names:
        (tmp_path / name).rename(kept / name)
    if stranger:
        SQLiteLog(path).close()
    with log.datastore.get_connection(commit=False):  # so that the next reader needs another one
        with pytest.raises(LogUnavailable, match="is not the file that it was: put that back"):
            log.head()
        assert path.exists() is stranger
        for name in names:
            (kept / name).rename(tmp_path / name)
        assert log.head().position == 1
    log.close()


async def test_what_a_thread_wrote_to_a_moved_log_has_no_known_outcome(
    path: Path, tmp_path: Path
) -> None:
    log = SQLiteLog(path, server=True)
    writer = SQLiteWriter(log)
    told: list[int] = []
    writer.listen(told.append)
    await writer.append(append("user/first"))
    writer._place._until = math.inf  # it looked a moment ago
    move(path, tmp_path / "kept")
    with pytest.raises(OutcomeUnknown, match="moved away while"):
        await writer.append(append("user/second"))
    assert told == [1], "nobody hears of what may be lost"
    move(tmp_path / "kept", path)
    writer.close()
    log.close()
