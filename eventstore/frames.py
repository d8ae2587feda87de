"""Messages between a process and its child: frames on a socket, eight bytes of length each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from socket import socket
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
        self._room = memoryview(bytearray(READ))
        """To read into: new memory for each piece would cost more than the piece."""

    def receive(self, source: socket) -> Iterable[bytes] | None:
        """Read what has come; return the messages that are complete now, None at the end.

        Raises what `socket.recv_into` raises.
        """
        count = source.recv_into(self._room)
        return self.feed(self._room[:count]) if count else None

    def feed(self, data: bytes | memoryview) -> Iterable[bytes]:
        """Take what was read; return the messages that are complete now."""
        if not self._read and int.from_bytes(data[:HEAD], "big") == len(data) - HEAD:
            return (bytes(data[HEAD:]),)  # one message: all there is with a lone caller
        self._read += data
        return self._complete()

    def _complete(self) -> Iterator[bytes]:
        read = self._read
        start = 0
        while (begin := start + HEAD) <= len(read):
            end = begin + int.from_bytes(read[start:begin], "big")
            if end > len(read):
                break
            yield bytes(read[begin:end])
            start = end
        del read[:start]
