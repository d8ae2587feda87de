"""Heads of requests that have been read before: the same bytes say the same again.

A gateway sends one head over and over, but for the length of its body. Most of what reading a
request costs is in its head, a call for each of its headers. Only what the server's own parser has
read whole, and what a secret opened, is kept: to agree with that parser on any other bytes is none
of this module's affairs (docs/decisions/0008-a-short-way-for-webhooks.md).
"""

from __future__ import annotations

from typing import Final, NamedTuple

END: Final = b"\r\n\r\n"
"""Ends a head."""
MOST: Final = 1000
"""Heads: a gateway's differ by the length of its messages."""
LONGEST: Final = 2048
"""Bytes of a head that is kept."""

Headers = list[tuple[bytes, bytes]]


class Head(NamedTuple):
    """What a head said."""

    headers: Headers
    opened: int
    """The bots that its secret opens, as `Desks` counts them."""
    length: int
    """Bytes of the body behind it."""


class Heads:
    """The heads of one server, by their bytes. Belongs to one event loop.

    When there is no room for another all go: they come again.
    """

    def __init__(self, bound: int = MOST) -> None:
        """Keep at most `bound` heads."""
        self.bound = bound
        self.hits = self.misses = self.evictions = 0
        self._heads: dict[bytes, Head] = {}

    def __len__(self) -> int:
        """How many are kept now."""
        return len(self._heads)

    def of(self, request: bytes) -> tuple[Head, bytes] | None:
        """Return head and body of bytes that are one whole request with a head that is known."""
        end = request.find(END) + len(END)
        head = self._heads.get(request[:end])
        if head is None or len(request) - end != head.length:
            self.misses += 1
            return None
        self.hits += 1
        return head, request[end:]

    def learn(self, request: bytes, headers: Headers, opened: int, body: bytes) -> bool:
        """Keep what a request said that was read; return whether it was these bytes and no more.

        `headers` and `body` are the parser's. A body that came in chunks, or that the head does
        not announce as it came, teaches nothing.
        """
        end = request.find(END) + len(END)
        lengths = [value for name, value in headers if name == b"content-length"]
        if request[end:] != body or lengths != [b"%d" % len(body)]:
            return False
        if any(name == b"transfer-encoding" for name, _ in headers):
            return False
        if end <= LONGEST:
            if len(self._heads) >= self.bound:
                self.evictions += len(self._heads)
                self._heads.clear()
            self._heads[request[:end]] = Head(headers, opened, len(body))
        return True
