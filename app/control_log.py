"""Decisions upon the control log, which is opened for one of them and closed again.

They are rare and any process may make one, so nobody keeps an aggregate of it: each is read anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from app import stores
from app.aggregates.stream import Triggered
from app.settings import Settings
from eventstore.codec import Codec, Event
from eventstore.errors import Conflict, EpochMismatch, LogUnavailable, UnknownEventType
from eventstore.store import LogReader
from eventstore.types import Append, Appended, Micros, StreamName, Version, new_append_id

_ATTEMPTS: Final = 50


class Decider(Protocol):
    """An `Aggregate`, whatever its state is."""

    stream: StreamName
    version: Version

    def follow(self, event: Event, version: Version, recorded_at: Micros) -> None:
        """Apply an event that is in the log."""

    def collect_events(self) -> Sequence[Triggered]:
        """Return and forget what was triggered."""


A = TypeVar("A")
D = TypeVar("D", bound=Decider)


def replayed(log: LogReader, codec: Codec, blank: D) -> D:
    """Return a blank aggregate after what the log tells of its stream now.

    Events of a newer release are counted and decide nothing.
    """
    for recorded in log.read_stream(blank.stream):
        try:
            event = codec.decode(recorded.type, recorded.state)
        except UnknownEventType:
            blank.version = recorded.version
            continue
        blank.follow(event, recorded.version, recorded.recorded_at)
    return blank


def decide(
    installation: Settings,
    codec: Codec,
    blank: Callable[[], D],
    command: Callable[[D, Micros], A],
) -> A:
    """Make durable what `command` decides at the log's time; return its answer.

    It is asked again if somebody else was first. Raises `LogUnavailable` if the log cannot be
    written, or never holds still.
    """
    log = stores.open_control_log(installation)
    try:
        for _ in range(_ATTEMPTS):
            aggregate = replayed(log, codec, blank())
            expected = aggregate.version
            answer = command(aggregate, log.now())
            events = tuple(codec.encode(event, key) for event, key in aggregate.collect_events())
            if not events:
                return answer
            stream = aggregate.stream
            append = Append(stream, expected, events, log.head().epoch, new_append_id())
            (done,) = log.append_batch([append])
            if isinstance(done, Appended):
                return answer
            if not isinstance(done, Conflict | EpochMismatch):
                raise done
    finally:
        log.close()
    msg = f"{blank().stream} of the control log is written too fast to decide upon: try again"
    raise LogUnavailable(msg)
