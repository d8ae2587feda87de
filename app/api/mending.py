"""A body that is not quite JSON, mended: for the failure path only.

Two things make msgspec refuse a whole body because of one item in it. Half an emoji: what
JSON.stringify makes of a text that was cut inside a surrogate pair is an escape that no UTF-8 has.
And brackets nested deeper than the interpreter's stack. Both are found by one pass over the bytes,
without recursion and in linear time.
"""

from __future__ import annotations

import re

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


def without_depths(body: bytes) -> tuple[bytes, list[bytes]]:
    """Return `body` with what lies below `DEEPEST` brackets replaced by null, and what that was.

    What a body that is cut short leaves open is left as it is: it is no JSON anyway.
    """
    kept: list[bytes] = []
    cut: list[bytes] = []
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
                kept += (body[done:start], b"null")
                cut.append(body[start : token.end()])
                done = token.end()
    return b"".join((*kept, body[done:])), cut
