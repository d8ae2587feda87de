"""Everything that an object holds, by the names that lead there, and how much it is."""

from __future__ import annotations

import asyncio
import functools
import logging
import types
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any, Final

_CONTAINERS: Final = (dict, list, set, deque)
_NOT_OURS: Final = (
    *(type, types.ModuleType, types.CodeType, types.FrameType, types.CoroutineType),
    *(asyncio.AbstractEventLoop, asyncio.Future, logging.Filterer),
    *(str, bytes, int, float, type(None)),
)
"""Where nobody of ours keeps anything, or, as the loop does, for the whole process."""


def sizes(**roots: object) -> Counter[str]:
    """Return how many items are held by containers that can be reached, by path.

    `bot.users._cells` is one path; the values of all its items share `bot.users._cells[]`.
    """
    found: Counter[str] = Counter()
    known: dict[int, object] = {}  # kept alive, so that ids are not used again
    queue = deque(roots.items())
    while queue:
        path, thing = queue.popleft()
        if id(thing) in known or isinstance(thing, _NOT_OURS):
            continue
        known[id(thing)] = thing
        if isinstance(thing, _CONTAINERS):
            found[path] += len(thing)
        queue.extend((path + name, child) for name, child in _children(thing))
    return found


def _children(thing: object) -> Iterator[tuple[str, object]]:
    match thing:
        case dict():
            yield from (("[]", value) for value in list(thing.values()))
        case list() | tuple() | set() | frozenset() | deque():
            yield from (("[]", value) for value in list(thing))
        case types.MethodType():
            yield "", thing.__self__
        case types.FunctionType():
            for cell in thing.__closure__ or ():
                try:
                    yield "()", cell.cell_contents
                except ValueError:  # empty by now
                    continue
        case functools.partial():
            yield from (("()", value) for value in (thing.func, *thing.args))
    yield from _attributes(thing)


def _attributes(thing: object) -> Iterator[tuple[str, Any]]:
    yield from ((f".{name}", value) for name, value in dict(getattr(thing, "__dict__", {})).items())
    for cls in type(thing).__mro__:
        names = cls.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if hasattr(thing, name):
                yield f".{name}", getattr(thing, name)
