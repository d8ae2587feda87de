"""How the files are replaced: whole, by one writer, and never over somebody's only copy."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from app.importing.legacy_json import taken_at
from app.thread_files import HeldElsewhere, NotOurs, Place, remove

OLD = b'{"15550100001": {"threadId": "thread_old"}}'
NEW = json.dumps({f"1555010{n:04}": {"threadId": f"conv_{n}"} for n in range(2_000)}).encode()


def place(tmp_path: Path, owner: str = "us") -> Place:
    return Place(tmp_path / "tmp", owner=owner, log="data/default/log.db")


def write(where: Place, content: bytes, *, backup: bool = True) -> None:
    with where.held() as held:
        held.replace(lambda file: pieces(file, content), backup=backup)


def pieces(file: BinaryIO, content: bytes) -> None:
    file.writelines(content[at : at + 4096] for at in range(0, len(content), 4096))


def in_a_child(work: Callable[[], object]) -> int:
    """Do it in a process of its own; return how that ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        work()
    except BaseException:  # noqa: BLE001 - this process is not the test's
        os._exit(1)
    os._exit(0)


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "tmp").iterdir())


OURS = ["threads.json", "threads.json.backup", "threads.json.lock"]


def test_only_their_owner_may_read_them(tmp_path: Path) -> None:
    before = os.umask(0)
    write(place(tmp_path), OLD)
    os.umask(before)
    assert names(tmp_path) == OURS
    for name in OURS:
        assert (tmp_path / "tmp" / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("nth", range(1, 9))
def test_whoever_is_killed_while_writing_leaves_the_old_files_or_the_new_ones(
    tmp_path: Path, nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = place(tmp_path)
    write(where, OLD)

    def dying() -> None:
        left = nth

        def step(kind: str, real: Callable[..., object]) -> Callable[..., object]:
            def counted(*arguments: object, **more: object) -> object:
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **more)

            return counted

        monkeypatch.setattr(os, "fsync", step("fsync", os.fsync))
        monkeypatch.setattr(Path, "replace", step("replace", Path.replace))
        with where.held() as held:
            held.replace(lambda file: pieces(file, NEW), backup=True)
            held.knows(1)

    ended = in_a_child(dying)
    assert ended == (-signal.SIGKILL if nth <= 7 else 0)
    current, backup = where.current.read_bytes(), where.backup.read_bytes()
    assert (current, backup) in {(OLD, OLD), (NEW, OLD), (NEW, NEW)}
    write(where, NEW)
    assert names(tmp_path) == OURS


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    where = place(tmp_path)
    write(where, OLD)

    def on_a_full_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        with pytest.raises(OSError, match="File too large"):
            write(where, NEW)

    assert in_a_child(on_a_full_disk) == 0
    assert (where.current.read_bytes(), where.backup.read_bytes()) == (OLD, OLD)
    assert names(tmp_path) == OURS


def test_what_somebody_else_wrote_is_kept_under_a_name_that_tells_its_time(tmp_path: Path) -> None:
    where = place(tmp_path)
    where.directory.mkdir()
    for old in (where.current, where.backup):
        old.write_bytes(OLD)
        os.utime(old, (1_753_119_373.918, 1_753_119_373.918))
    with where.held() as held:
        kept = held.kept
    assert kept == (
        "threads-2025-07-21T17-36-13-918Z.json",
        "threads-backup-2025-07-21T17-36-13-918Z.json",
    )
    assert [(where.directory / name).read_bytes() for name in kept] == [OLD, OLD]
    assert taken_at(kept[0]) == 1_753_119_373_918_000
    write(where, NEW)
    with where.held() as held:  # they are ours from now on
        assert held.kept == ()
    assert names(tmp_path) == sorted([*OURS, *kept])


def test_the_files_of_another_log_are_left_alone(tmp_path: Path) -> None:
    write(place(tmp_path), OLD)
    other = place(tmp_path, owner="they")
    with pytest.raises(NotOurs, match=r"written for the log data/default/log\.db: set HILO_TMP"):
        write(other, NEW)
    assert place(tmp_path).current.read_bytes() == OLD


def test_there_is_one_writer_at_a_time(tmp_path: Path) -> None:
    where = place(tmp_path)
    with where.held(), pytest.raises(HeldElsewhere), where.held(wait=False):
        pass  # pragma: no cover


def test_what_is_removed_is_gone_and_can_be_made_again(tmp_path: Path) -> None:
    where = place(tmp_path)
    write(where, OLD)
    (where.directory / ".threads.json.backup.abc.part").write_bytes(OLD)  # a killed writer's
    with where.held() as held:
        held.remove()
    assert names(tmp_path) == []
    assert not where.is_claimed
    write(where, NEW)
    assert names(tmp_path) == OURS


def test_files_that_know_of_all_who_were_forgotten_may_stay(tmp_path: Path) -> None:
    where = place(tmp_path)
    assert not remove(where)
    assert not where.directory.exists()
    write(where, OLD)
    with where.held() as held:
        held.knows(3)
    assert not remove(where, unless_known=3)
    assert where.current.read_bytes() == OLD
    assert remove(where, unless_known=4)
    assert names(tmp_path) == []


def test_the_files_know_of_how_many_destructions_they_know(tmp_path: Path) -> None:
    where = place(tmp_path)
    with where.held() as held:
        assert held.destructions == -1
        held.knows(3)
    with where.held() as held:
        assert held.destructions == 3
