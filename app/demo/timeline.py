"""One person's stream in words, opened with the demo's own keys: what the log knows of a turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from app.aggregates import events as e
from app.demo.accounts import Ledger
from app.settings import Settings
from app.stores import open_keyring, open_log
from eventstore.codec import Codec, Event
from eventstore.sealing import Sealer
from eventstore.store import LogReader
from eventstore.types import Recorded, StreamName

_CODEC: Final = Codec(e.USER_EVENTS)
KILLED: Final = "kill -9"
_MOST_LINES: Final = 24
_TEXT: Final = 58


class Line(msgspec.Struct, frozen=True):
    """One event: when (seconds since the first), and what it says."""

    seconds: float
    kind: str
    text: str


class Death(NamedTuple):
    """A kill -9: when (µs since 1970), and of whom, if there were several."""

    at: int
    whose: str


def excerpt(settings: Settings, ledger: Ledger, deaths: Sequence[Death]) -> tuple[Line, ...]:
    """Return the timeline of a person whose run was cut short by a kill, or of the first."""
    log = open_log(settings)
    keyring = open_keyring(settings)
    try:
        stream = _most_telling(log, ledger, deaths)
        if stream is None:
            return ()
        return _lines(log.read_stream(stream), Sealer(keyring), deaths)
    finally:
        keyring.close()
        log.close()


def _most_telling(log: LogReader, ledger: Ledger, deaths: Sequence[Death]) -> StreamName | None:
    """Return the stream with the shortest story of a run that a kill interrupted."""
    interrupted = {
        run.stream
        for run in ledger.attempts.values()
        for death in deaths
        if run.started_at <= death.at < (run.completed_at or death.at + 1)
    }
    names = sorted(interrupted) or sorted({run.stream for run in ledger.attempts.values()})
    best: tuple[int, int, StreamName] | None = None
    for name in names[:200]:
        events = log.read_stream(StreamName(name))
        rating = (-_drama(events, deaths), len(events), StreamName(name))
        best = rating if best is None else min(best, rating)
    return None if best is None else best[2]


def _drama(events: list[Recorded], deaths: Sequence[Death]) -> int:
    """Count whether a run or a delivery was open at a kill, and whether it was taken over."""
    taken_over = any(event.type == "TurnTakenOver" for event in events)
    return any(_spans(events, death.at) for death in deaths) + taken_over


def _spans(events: list[Recorded], killed_at: int) -> bool:
    """Tell whether a run, or a delivery, was open when the process was killed."""
    before = [event.type for event in events if event.recorded_at <= killed_at]
    opened = sum(kind in {"RunStarted", "DeliveryStarted"} for kind in before)
    closed = sum(kind in {"RunCompleted", "RunCancelled", "MessageSent"} for kind in before)
    return opened > closed


def _lines(events: list[Recorded], sealer: Sealer, deaths: Sequence[Death]) -> tuple[Line, ...]:
    first = events[0].recorded_at
    lines: list[Line] = []
    to_tell = deque(death for death in sorted(deaths) if death.at > first)
    for recorded in events:
        while to_tell and recorded.recorded_at > to_tell[0].at:
            at, whose = to_tell.popleft()
            told = f"{KILLED} of {whose}" if whose else KILLED
            lines.append(Line((at - first) / 1e6, "", told))
        event = _CODEC.decode(recorded.type, recorded.state)
        text = _say(event, recorded.stream, sealer)
        if text is not None:
            lines.append(Line((recorded.recorded_at - first) / 1e6, recorded.type, text))
    if len(lines) > _MOST_LINES:
        left_out = len(lines) - _MOST_LINES
        lines = [*lines[:_MOST_LINES], Line(lines[_MOST_LINES].seconds, "", f"… {left_out} more")]
    return tuple(lines)


def _say(  # noqa: C901, PLR0911, PLR0912 - one line for each kind of event
    event: Event, stream: StreamName, sealer: Sealer
) -> str | None:
    """Return what an event means; None for what would only make the story longer."""
    owner = stream.partition("/")[2]
    match event:
        case e.UserRegistered():
            return f"somebody new, from now on {owner}"
        case e.MessageReceived() | e.MessageEdited() | e.HumanMessageSent():
            said = sealer.open(owner, stream, "content", event.content, e.Content)
            silent = isinstance(event, e.MessageReceived) and not event.answerable
            note = " (recorded, not for answering)" if silent else ""
            return f"“{_short(said.text or '[no text]')}”{note}"
        case e.MessageDeleted():
            return "takes a message back"
        case e.TypingObserved():
            return "is typing"
        case e.ThreadStarted():
            return f"a conversation at OpenAI: {event.reason}"
        case e.RunStarted():
            return f"turn claimed by {event.node} {event.incarnation}, attempt {event.attempt}"
        case e.TurnTakenOver():
            return f"taken over by {event.node} {event.incarnation}: {event.before} is gone"
        case e.RunSubmitted():
            return f"OpenAI took it: …{event.response[-6:]}"
        case e.RunCompleted():
            return "the answer is here"
        case e.TokensIncremented():
            return f"{event.total} tokens ({event.input} in, {event.output} out)"
        case e.RunCancelled():
            return f"run given up: {event.reason}"
        case e.RunFailed():
            return f"run failed: {event.code}"
        case e.UsageUnknown():
            return "nobody can say what that run used"
        case e.DeliveryStarted():
            return None
        case e.MessageSent():
            found = f"found at the gateway by its {event.adopted}" if event.adopted else "sent"
            return f"part {event.part + 1} of the answer: {found}"
        case e.DeliveryUncertain():
            return "nobody can say whether that part was sent"
        case e.TurnParked():
            return f"turn given up after {event.attempts} attempts"
        case _:
            return None


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TEXT else f"{line[: _TEXT - 1]}…"
