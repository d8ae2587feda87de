"""Logs to project: builders of events, random histories, and a naive account of what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

from hypothesis import strategies as st

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
from app.projections.content import Content as Tables
from eventstore.codec import Codec, Event
from eventstore.sealing import Sealed
from eventstore.sqlite import SQLiteLog
from eventstore.types import Append, NewEvent, Position, StreamName, Version, new_append_id

CODEC = Codec(USER_EVENTS)
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
        self.log = SQLiteLog(path, server=True)

    def append(self, user: str, *events: Event) -> Position:
        """Append the events as one append and return the last position."""
        return self.append_raw(user, *map(CODEC.encode, events))

    def append_raw(self, user: str, *events: NewEvent) -> Position:
        """Append what the codec would refuse."""
        stream = StreamName(f"user/{user}")
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


def naive(log: SQLiteLog, up_to: int | None = None) -> Tables:
    """What the tables must hold, told user by user in the plainest way."""
    people: dict[str, list[tuple[int, Event]]] = {}
    for record in log.read(limit=1_000_000, up_to=None if up_to is None else Position(up_to)):
        event = CODEC.decode(record.type, record.state)
        people.setdefault(record.stream[5:], []).append((record.recorded_at, event))
    map_rows = [row for user, seen in people.items() if (row := _map_row(user, seen))]
    token_rows = [row for user, seen in people.items() if (row := _token_row(user, seen))]
    return {
        "thread_map": {
            "thread_map": [
                [
                    "user",
                    "thread",
                    "started_at",
                    "reset_reason",
                    "registered_at",
                    "last_activity",
                    "messages_in",
                    "messages_out",
                ],
                *sorted(map_rows, key=repr),
            ]
        },
        "token_totals": {
            "token_totals": [
                ["user", "thread", "tokens", "total", "left_behind", "unknown_runs"],
                *sorted(token_rows, key=repr),
            ]
        },
    }


def _count(seen: list[tuple[int, Event]], kind: type[Event]) -> int:
    return sum(isinstance(event, kind) for _, event in seen)


def _last(seen: list[tuple[int, Event]], *kinds: type[Event]) -> int | None:
    return max((at for at, event in seen if isinstance(event, kinds)), default=None)


Linked = tuple[str | None, int | None]
"""The current conversation and since when."""


def _linked(before: Linked, at: int, event: Event) -> Linked:
    if isinstance(event, ThreadStarted):
        return event.thread, at
    if isinstance(event, ThreadReset) and event.thread == before[0] and event.reason != "empty":
        return None, None
    return before


def _thread(seen: list[tuple[int, Event]]) -> Linked:
    thread: Linked = (None, None)
    for at, event in seen:
        thread = _linked(thread, at, event)
    return thread


def _map_row(user: str, seen: list[tuple[int, Event]]) -> list[object] | None:
    talk = (MessageReceived, MessageSent, HumanMessageSent)
    if not any(
        isinstance(event, (*talk, UserRegistered, ThreadStarted, ThreadReset)) for _, event in seen
    ):
        return None
    reasons = [event.reason for _, event in seen if isinstance(event, ThreadReset)]
    return [
        user,
        *_thread(seen),
        reasons[-1] if reasons else None,
        _last(seen, UserRegistered),
        _last(seen, *talk),
        _count(seen, MessageReceived),
        _count(seen, MessageSent),
    ]


def _token_row(user: str, seen: list[tuple[int, Event]]) -> list[object] | None:
    counted = (TokensIncremented, ThreadStarted, ThreadReset, UsageUnknown)
    if not any(isinstance(event, counted) for _, event in seen):
        return None
    now, total, left = 0, 0, 0
    linked: Linked = (None, None)
    for at, event in seen:
        before = linked[0]
        linked = _linked(linked, at, event)
        if isinstance(event, TokensIncremented):
            total += max(0, event.total)
            now += max(0, event.total) if before is not None and event.thread == before else 0
        if isinstance(event, ThreadStarted):
            now, left = 0, left + now
        if isinstance(event, ThreadReset):
            left += event.left_behind
            now = 0 if event.thread == before else now
    return [user, _thread(seen)[0], now, total, left, _count(seen, UsageUnknown)]
