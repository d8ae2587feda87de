"""What the key-encryption key promises: from a safe place or refused, and never shown."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import pytest

from eventstore.errors import KeyEncryptionKeyError
from eventstore.kek import KeyEncryptionKey


@pytest.fixture
def kek(tmp_path: Path) -> KeyEncryptionKey:
    return KeyEncryptionKey.from_file(tmp_path / "kek")


def test_a_key_file_is_made_once_and_for_its_owner_alone(
    tmp_path: Path, kek: KeyEncryptionKey
) -> None:
    path = tmp_path / "kek"
    assert path.stat().st_mode & 0o777 == 0o600
    again = KeyEncryptionKey.from_file(path)
    assert again.unwrap(kek.wrap(bytes(32), "x", 1), "x", 1) == bytes(32)
    assert [file.name for file in tmp_path.iterdir()] == ["kek"]


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o666])
def test_a_key_file_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "kek"
    path.write_bytes(bytes(32))
    path.chmod(mode)
    with pytest.raises(KeyEncryptionKeyError, match="chmod 600"):
        KeyEncryptionKey.from_file(path)


@pytest.mark.parametrize("size", [0, 31, 33, 4096])
def test_a_key_file_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "kek"
    path.write_bytes(bytes(size))
    path.chmod(0o600)
    with pytest.raises(KeyEncryptionKeyError, match="does not hold a key"):
        KeyEncryptionKey.from_file(path)


def test_a_key_comes_from_the_environment_or_a_command_just_as_well(kek: KeyEncryptionKey) -> None:
    text = base64.b64encode(bytes(range(32))).decode()
    program = [sys.executable, "-c", f"print({text!r})"]
    wrapped = KeyEncryptionKey.from_bytes(bytes(range(32))).wrap(b"k" * 32, "x", 1)
    for same in (
        KeyEncryptionKey.from_base64(f" {text}\n"),
        KeyEncryptionKey.from_command(program),
    ):
        assert same.unwrap(wrapped, "x", 1) == b"k" * 32
        for owner, generation in (("y", 1), ("x", 2)):
            with pytest.raises(KeyEncryptionKeyError):
                same.unwrap(wrapped, owner, generation)
    with pytest.raises(KeyEncryptionKeyError):
        kek.unwrap(wrapped, "x", 1)


@pytest.mark.parametrize("text", ["", "c2hvcnQ=", "not base64!", "ñ" * 44])
def test_a_key_that_is_no_key_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(KeyEncryptionKeyError) as refused:
        KeyEncryptionKey.from_base64(text)
    assert not text or text not in str(refused.value)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (["no-such-program-anywhere"], "FileNotFoundError"),
        ([sys.executable, "-c", "raise SystemExit(3)"], "exit status 3"),
        ([sys.executable, "-c", "import signal; signal.pause()"], "TimeoutExpired"),
    ],
)
def test_a_command_that_gives_no_key_is_named_with_its_reason(
    program: list[str], reason: str
) -> None:
    with pytest.raises(KeyEncryptionKeyError, match=reason):
        KeyEncryptionKey.from_command(program, timeout=0.5)


def test_printing_a_key_does_not_show_it(kek: KeyEncryptionKey, tmp_path: Path) -> None:
    assert repr((tmp_path / "kek").read_bytes()) not in repr(kek)
