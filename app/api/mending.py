"""A body that is not quite JSON, mended: for the failure path only.

Two things make msgspec refuse a whole body because of one item in it. Half an emoji: what
JSON.stringify makes of a text that was cut inside a surrogate pair is an escape that no UTF-8 has.
And brackets nested deeper than the interpreter's stack. Both are found by one pass over the bytes,
without recursion and in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256

DEEPEST = 100
"""Brackets around what is kept. Whapi's items need about ten."""

_ESCAPE = re.compile(
    rb"(?P<pair>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|\\.",  # any other escape, taken whole: what follows `\\` is no escape
    re.DOTALL,
)
_REPLACEMENT = rb"\ufffd"

# A string, whole or cut off by the end of the body (possessive: nothing is tried twice), or a
# bracket.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


def with_whole_characters(body: bytes) -> bytes:
    """Return `body` with each lone surrogate escape replaced by U+FFFD; pairs are left alone."""
    return _ESCAPE.sub(lambda m: _REPLACEMENT if m.lastgroup == "half" else m[0], body)


class Holes:
    """What was cut out of a body, and the marks that stand for it there.

    A mark is a string that the body cannot hold: it is made of the body's hash.
    """

    def __init__(self, body: bytes) -> None:
        """Nothing is cut yet."""
        self._name = sha256(body).hexdigest().encode()
        self._mark = re.compile(rb'"%b:([0-9]+)"' % self._name)
        self._cut: list[bytes] = []
        self._filled: set[int] = set()

    def cut(self, part: bytes) -> bytes:
        """Keep a part of the body; return the mark to put in its place."""
        self._cut.append(part)
        return b'"%b:%d"' % (self._name, len(self._cut) - 1)

    def fill(self, raw: bytes) -> bytes:
        """Return what of the body is in `raw` as it came, with the parts that its marks stand for.

        The same bytes, if there are no marks in it.
        """
        return self._mark.sub(self._part, raw)

    @property
    def left(self) -> Sequence[bytes]:
        """The parts that were never filled in."""
        return [part for number, part in enumerate(self._cut) if number not in self._filled]

    def _part(self, mark: re.Match[bytes]) -> bytes:
        number = int(mark[1])
        self._filled.add(number)
        return self._cut[number]


def without_depths(body: bytes) -> tuple[bytes, Holes]:
    """Return `body` with what lies below `DEEPEST` brackets replaced by marks, and what that was.

    What a body that is cut short leaves open is left as it is: it is no JSON anyway.
    """
    holes = Holes(body)
    kept: list[bytes] = []
    depth = start = done = 0
    for token in _TOKEN.finditer(body):
        bracket = token[0]
        if bracket in (b"[", b"{"):
            depth += 1
            if depth == DEEPEST + 1:
                start = token.start()
        elif bracket in (b"]", b"}"):
            depth -= 1
            if depth == DEEPEST:
                kept += (body[done:start], holes.cut(body[start : token.end()]))
                done = token.end()
    return b"".join((*kept, body[done:])), holes
