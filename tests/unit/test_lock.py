"""Locks of a server: what they make, what they take back, and what counts as one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.lock import _locked, exclusive, exclusive_directory
from eventstore.errors import StoreLocked


class Refused(Exception):
    """The server cannot start."""


def refused(data: Path, *left: str) -> None:
    """A start that fails once it has its locks, and has left files in the bot's directory."""
    with (
        pytest.raises(Refused),
        exclusive_directory(data / "default", "the bot's directory"),
        exclusive(data / "serve.lock", "the data directory"),
    ):
        fail(*(data / "default" / name for name in left))


def fail(*left: Path) -> None:
    for path in left:
        path.touch()
    raise Refused


def test_a_start_that_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    refused(tmp_path / "deep" / "data")
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_a_refused_start_is_there_after_it(tmp_path: Path) -> None:
    (tmp_path / "default").mkdir()
    (tmp_path / "serve.lock").touch()
    refused(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"default", "serve.lock"}


def test_a_directory_in_which_something_was_left_stays(tmp_path: Path) -> None:
    data = tmp_path / "data"
    refused(data, "log.db")
    assert list(data.iterdir()) == [data / "default"]
    assert [path.name for path in (data / "default").iterdir()] == ["log.db"]


def test_a_start_that_ends_well_leaves_its_directories(tmp_path: Path) -> None:
    with (
        exclusive_directory(tmp_path / "default", "the bot's directory"),
        exclusive(tmp_path / "serve.lock", "the data directory"),
    ):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"default", "serve.lock"}


def test_who_finds_a_lock_held_takes_nothing_of_it_back(tmp_path: Path) -> None:
    directory, lock = tmp_path / "data" / "default", tmp_path / "data" / "serve.lock"
    with exclusive_directory(directory, "it"), exclusive(lock, "it"):
        for again in (exclusive_directory(directory, "it"), exclusive(lock, "it")):
            with pytest.raises(StoreLocked, match=f"it is in use by process {os.getpid()}"), again:
                pass
        assert lock.exists()
        assert (directory / "serve.pid").exists()


def test_a_lock_that_was_taken_back_before_we_had_it_is_none(tmp_path: Path) -> None:
    lock = tmp_path / "serve.lock"
    opened: list[int] = []

    def opening() -> int:
        """As somebody does who opened the file just before its holder removed it."""
        opened.append(os.open(lock, os.O_RDWR | os.O_CREAT))
        if len(opened) == 1:
            lock.unlink()
        return opened[-1]

    descriptor = _locked(lock, opening, str)
    try:
        assert len(opened) == 2
        assert os.path.samestat(lock.stat(), os.fstat(descriptor))
    finally:
        os.close(descriptor)
