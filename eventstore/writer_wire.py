"""What a log's writer process and whoever started it say to each other: frames of msgpack.

`Batch` asks, `Done` answers, in the same order.
Both ends are of one release and one machine, so nothing here is kept or has versions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import msgspec

from eventstore.errors import (
    AppendRejected,
    Conflict,
    DuplicateKey,
    EpochMismatch,
    EventStoreError,
    LogUnavailable,
    OutcomeUnknown,
)
from eventstore.store import Beat
from eventstore.types import Append, Appended, Snapshot

LONELY: Final = 3
"""Requests in a row that came alone from which on there seems to be one caller, who waits for each.

Both ends then look for what comes next for a while before they sleep: to be woken takes longer."""
NOT_OPENED: Final = 3
"""Exit code of a process that could not open its log, and so has appended nothing."""
MOVED: Final = 4
"""Exit code of a process that has written what it had in hand to a file that is elsewhere now."""
WRITTEN_ELSEWHERE: Final = "the log was moved away while this was written to it"


class Failure(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An error on its way to another process."""

    kind: str
    arguments: list[Any]


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Requests that were made in one round of the event loop."""

    appends: list[Append]
    snapshots: list[Snapshot] = []
    beats: list[Beat] = []


class Done(msgspec.Struct, frozen=True, array_like=True):
    """The answers to a batch; they are durable."""

    answers: list[Appended | None]
    """One for each append; None for those in `failures`."""
    failures: dict[int, Failure]
    """By the place in `answers`."""
    lost: Failure | None = None
    """Why the whole transaction failed, if it did: snapshots and beats fail with it."""


_ARGUMENTS: Final[dict[type[EventStoreError], Callable[[Any], list[Any]]]] = {
    Conflict: lambda error: [error.stream, error.expected, error.actual],
    DuplicateKey: lambda error: [error.key],
    EpochMismatch: lambda error: [error.expected, error.actual],
    AppendRejected: lambda error: [str(error)],
    LogUnavailable: lambda error: [str(error)],
    OutcomeUnknown: lambda error: [str(error)],
}
_KINDS: Final = {kind.__name__: kind for kind in _ARGUMENTS}


def failure(error: EventStoreError) -> Failure:
    """Return an error as it travels."""
    kind = next((kind for kind in type(error).__mro__ if kind in _ARGUMENTS), OutcomeUnknown)
    return Failure(kind.__name__, _ARGUMENTS[kind](error))


def error_of(failed: Failure) -> EventStoreError:
    """Return the error that travelled."""
    return _KINDS[failed.kind](*failed.arguments)


def done(answers: Sequence[Appended | EventStoreError], lost: EventStoreError | None) -> Done:
    """Return the answer to a batch whose appends got `answers`."""
    failures = {
        place: failure(answer)
        for place, answer in enumerate(answers)
        if isinstance(answer, EventStoreError)
    }
    given: Sequence[object] = answers
    if failures:
        given = [None if place in failures else answer for place, answer in enumerate(answers)]
    return Done(
        cast("list[Appended | None]", given),
        failures,
        None if lost is None else failure(lost),
    )
