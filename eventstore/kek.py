"""The key-encryption key: where it comes from, and how it wraps the keyring's keys.

It lives apart from `keys.db`: in a file of its own, in the environment, or with a command that
asks a vault for it. Whoever has only one of the two can open nothing.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from eventstore.durable import sync_directory
from eventstore.errors import KeyEncryptionKeyError

KEY_BYTES: Final = 32
"""Length of every AES-256 key: this one, and those it wraps."""

NONCE_BYTES: Final = 12
"""Length of the random nonce in front of every AES-GCM ciphertext."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class KeyEncryptionKey:
    """Wraps and unwraps 32-byte data keys: AES-256-GCM, bound to owner and generation."""

    _cipher: AESGCM

    @classmethod
    def from_bytes(cls, key: bytes) -> KeyEncryptionKey:
        """Take 32 bytes as the key. Raises `KeyEncryptionKeyError` for any other size."""
        if len(key) != KEY_BYTES:
            msg = f"a key-encryption key has {KEY_BYTES} bytes, not {len(key)}"
            raise KeyEncryptionKeyError(msg)
        return cls(AESGCM(key))

    @classmethod
    def from_file(cls, path: Path) -> KeyEncryptionKey:
        """Read the key from `path`; if nothing is there, make a random one, durable on return.

        The new file has mode 0600. Raises `KeyEncryptionKeyError` if the file is open to others
        (any access for them, or write access for its group) or does not hold exactly 32 bytes.
        """
        if not path.exists():
            _create_key_file(path)
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & (stat.S_IRWXO | stat.S_IWGRP):
                msg = (
                    f"others can reach the key-encryption key {path} (mode {mode & 0o777:04o}): "
                    "chmod 600 it, and replace it if somebody may have read it"
                )
                raise KeyEncryptionKeyError(msg)
            key = file.read(KEY_BYTES + 1)
        if len(key) != KEY_BYTES:
            msg = f"{path} does not hold a key of {KEY_BYTES} bytes: put its backup in its place"
            raise KeyEncryptionKeyError(msg)
        return cls.from_bytes(key)

    @classmethod
    def from_base64(cls, text: str) -> KeyEncryptionKey:
        """Decode the key from standard base64, as an environment variable carries it."""
        try:
            key = base64.b64decode(text.strip(), validate=True)
        except (binascii.Error, ValueError):
            msg = "the key-encryption key is not base64: `openssl rand -base64 32` makes one"
            raise KeyEncryptionKeyError(msg) from None  # the cause would quote the key
        return cls.from_bytes(key)

    @classmethod
    def from_command(cls, argv: Sequence[str], *, timeout: float = 30.0) -> KeyEncryptionKey:
        """Run a command (no shell) that prints the key in base64. `timeout` is in seconds."""
        try:
            done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=timeout)
        except (OSError, subprocess.SubprocessError) as error:
            reason = getattr(error, "returncode", None)
            how = type(error).__name__ if reason is None else f"exit status {reason}"
            msg = f"{argv[0]!r} did not give the key-encryption key ({how})"
            raise KeyEncryptionKeyError(msg) from None  # the cause may hold what was printed
        return cls.from_base64(done.stdout.decode("ascii", errors="replace"))

    def wrap(self, key: bytes, owner: str, generation: int) -> bytes:
        """Return nonce (12) ‖ ciphertext ‖ tag (16)."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, key, _wrapping(owner, generation))

    def unwrap(self, wrapped: bytes, owner: str, generation: int) -> bytes:
        """Undo `wrap`. Raises `KeyEncryptionKeyError` if key, owner or generation differ."""
        nonce, box = wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, box, _wrapping(owner, generation))
        except (InvalidTag, ValueError):
            msg = (
                f"the key of {owner}, generation {generation}, was not wrapped by this "
                "key-encryption key, or its row is damaged: put the right one, or the backup, back"
            )
            raise KeyEncryptionKeyError(msg) from None


def _wrapping(owner: str, generation: int) -> bytes:
    return b"data key/1\0" + generation.to_bytes(8, "big") + owner.encode()


def _create_key_file(path: Path) -> None:
    """Put 32 random bytes at `path`, whole and durable or not at all; the first of two wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()
    sync_directory(path.parent)
