"""Which files a database is in: what is told of names that lead elsewhere."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from eventstore.places import SETTLED_NS, DatabaseFiles, Directory


def files(path: Path) -> DatabaseFiles:
    """Make a database's three files, and tell them."""
    for end in ("", "-wal", "-shm"):
        Path(f"{path}{end}").write_bytes(b"x")
    found = DatabaseFiles.of(path)
    assert found is not None
    return found


def settle(directory: Path) -> None:
    """Let the last change in a directory be long ago."""
    then = time.time_ns() - 2 * SETTLED_NS
    os.utime(directory, ns=(then, then))


@pytest.mark.parametrize("gone", ["", "-wal", "-shm"])
def test_a_file_that_is_missing_or_another_one_is_told(tmp_path: Path, gone: str) -> None:
    path = tmp_path / "log.db"
    before = files(path)
    assert DatabaseFiles.of(path) == before
    Path(f"{path}{gone}").rename(tmp_path / "kept")
    found = DatabaseFiles.of(path)
    assert found != before
    assert (found is None) == (gone == "")
    assert before.but_for_wal(found) == (gone == "-wal")
    Path(f"{path}{gone}").write_bytes(b"x")
    assert DatabaseFiles.of(path) != before
    (tmp_path / "kept").rename(f"{path}{gone}")
    assert DatabaseFiles.of(path) == before


def test_a_directory_in_which_nothing_was_renamed_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    files(path)
    settle(tmp_path)
    directory = Directory(tmp_path)
    assert not directory.is_as_it_was()  # it had not been looked at
    assert directory.is_as_it_was()
    path.write_bytes(b"more")
    assert directory.is_as_it_was()
    directory.forget()
    assert not directory.is_as_it_was()


def test_a_change_is_told_and_what_changed_just_now_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    files(path)
    settle(tmp_path)
    directory = Directory(tmp_path)
    directory.is_as_it_was()
    path.rename(tmp_path / "kept")
    for _ in range(3):
        assert not directory.is_as_it_was()
    settle(tmp_path)
    assert not directory.is_as_it_was()
    assert directory.is_as_it_was()


def test_a_directory_that_is_another_one_or_none_is_not_as_it_was(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    settle(place)
    directory = Directory(place)
    directory.is_as_it_was()
    place.rename(tmp_path / "kept")
    assert not directory.is_as_it_was()
    place.mkdir()
    settle(place)
    assert not directory.is_as_it_was()
