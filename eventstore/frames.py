"""Messages between a process and its child: frames on a socket, eight bytes of length each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

HEAD: Final = 8
"""Bytes of a frame's length."""
READ: Final = 1024 * 1024
"""Bytes that are read at once."""


def frame(message: bytes) -> bytes:
    """Return a message as it is sent."""
    return len(message).to_bytes(HEAD, "big") + message


class Frames:
    """Cuts what is read into messages."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._read = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take what was read; yield each message that is complete now."""
        read = self._read
        read += data
        start = 0
        while (begin := start + HEAD) <= len(read):
            end = begin + int.from_bytes(read[start:begin], "big")
            if end > len(read):
                break
            yield bytes(read[begin:end])
            start = end
        del read[:start]
