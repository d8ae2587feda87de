"""Logs to project: builders of events, and random histories that no aggregate would allow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

from hypothesis import strategies as st

from app.aggregates.cleanup_events import CLEANUP_EVENTS, CLEANUP_STREAM, CleanupRecorded
from app.aggregates.events import (
    USER_EVENTS,
    Content,
    HumanMessageSent,
    MessageReceived,
    MessageSent,
    ResetReason,
    SentMessage,
    ThreadReset,
    ThreadStarted,
    TokensIncremented,
    TypingObserved,
    UsageUnknown,
    UserRegistered,
)
from app.aggregates.gateway_events import GATEWAY_EVENTS
from eventstore.codec import Codec, Event
from eventstore.sealing import Sealed
from eventstore.sqlite import SQLiteLog
from eventstore.store import LogStore
from eventstore.types import Append, NewEvent, Position, StreamName, Version, new_append_id

CODEC = Codec((*USER_EVENTS, *GATEWAY_EVENTS, *CLEANUP_EVENTS))
SEALED = {"generation": 1, "box": b"box", "digest": b"digest"}
History = Sequence[tuple[str, Sequence[Event]]]
"""Appends: whose, and the events."""


def registered() -> Event:
    return UserRegistered(gateway="whapi", chat=Sealed[str](**SEALED))  # type: ignore[arg-type]


def received() -> Event:
    return MessageReceived(ref=b"r", kind="text", content=Sealed[Content](**SEALED))  # type: ignore[arg-type]


def human() -> Event:
    return HumanMessageSent(ref=b"r", content=Sealed[Content](**SEALED))  # type: ignore[arg-type]


def sent() -> Event:
    return MessageSent(run="u", part=0, ref=b"r", sent=Sealed[SentMessage](**SEALED))  # type: ignore[arg-type]


def started(thread: str) -> Event:
    return ThreadStarted(thread=thread, reason="first_time")


def reset(thread: str | None, reason: ResetReason = "expired", left_behind: int = 0) -> Event:
    return ThreadReset(thread=thread, reason=reason, left_behind=left_behind)


def tokens(thread: str, total: int) -> Event:
    return TokensIncremented(thread=thread, run="u", total=total)


def unknown() -> Event:
    return UsageUnknown(run="u")


THREADS = st.sampled_from(["conv_1", "conv_2", "conv_3"])
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(registered),
    st.builds(received),
    st.builds(human),
    st.builds(sent),
    st.builds(unknown),
    st.builds(TypingObserved),
    st.builds(started, THREADS),
    st.builds(
        reset,
        st.none() | THREADS,
        st.sampled_from(get_args(ResetReason)),
        st.integers(0, 500),
    ),
    st.builds(tokens, THREADS, st.integers(-3, 500)),
)
HISTORIES: st.SearchStrategy[History] = st.lists(
    st.tuples(st.sampled_from("abcd"), st.lists(EVENTS, min_size=1, max_size=4)), max_size=25
)


class TestLog:
    """A log that is easily written to."""

    __test__ = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log: LogStore = self.open()

    def open(self) -> LogStore:
        """Open the log; another store does it in its own way."""
        return SQLiteLog(self.path, server=True)

    def append(self, user: str, *events: Event) -> Position:
        """Append the events as one append and return the last position."""
        return self.append_raw(user, *map(CODEC.encode, events))

    def append_raw(self, user: str, *events: NewEvent) -> Position:
        """Append what the codec would refuse."""
        return self.append_to(StreamName(f"user/{user}"), *events)

    def clean_up(self, cleanup: str, cleaned: int, tokens: int) -> Position:
        """Record a run of the clean-up."""
        event = CleanupRecorded(cleanup=cleanup, limit=100, cleaned=cleaned, tokens=tokens)
        return self.append_to(CLEANUP_STREAM, CODEC.encode(event))

    def append_to(self, stream: StreamName, *events: NewEvent) -> Position:
        """Append to any stream."""
        version = Version(self.log.stream_version(stream))
        append = Append(stream, version, events, self.log.head().epoch, new_append_id())
        (answer,) = self.log.append_batch([append])
        if isinstance(answer, Exception):
            raise answer
        return answer.last_position

    def write(self, history: History) -> None:
        """Append a history."""
        for user, events in history:
            self.append(user, *events)

    def chat(self, users: Iterable[str], turns: int = 1) -> Position:
        """Let each user have a conversation of so many turns."""
        position = Position(0)
        for user in users:
            self.append(user, registered(), started(f"conv_{user}"))
            for turn in range(turns):
                self.append(user, received())
                self.append(user, tokens(f"conv_{user}", 100 + turn))
                position = self.append(user, sent())
        return position

    def close(self) -> None:
        self.log.close()
