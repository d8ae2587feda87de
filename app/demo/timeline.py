"""One person's stream in words, opened with the demo's own keys: what the log knows of a turn."""

from __future__ import annotations

from typing import Final

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
_MOST_LINES: Final = 24
_TEXT: Final = 58


class Line(msgspec.Struct, frozen=True):
    """One event: when (seconds since the first), and what it says."""

    seconds: float
    kind: str
    text: str


def excerpt(settings: Settings, ledger: Ledger, killed_at: int) -> tuple[Line, ...]:
    """Return the timeline of the person whose run was cut short by the kill, or of the first."""
    log = open_log(settings)
    keyring = open_keyring(settings)
    try:
        stream = _most_telling(log, ledger, killed_at)
        if stream is None:
            return ()
        return _lines(log.read_stream(stream), Sealer(keyring), killed_at)
    finally:
        keyring.close()
        log.close()


def _most_telling(log: LogReader, ledger: Ledger, killed_at: int) -> StreamName | None:
    """Return the stream with the shortest story of a run that the kill interrupted."""
    interrupted = {
        run.stream
        for run in ledger.attempts.values()
        if run.started_at <= killed_at < (run.completed_at or killed_at + 1)
    }
    names = sorted(interrupted) or sorted({run.stream for run in ledger.attempts.values()})
    best: tuple[bool, int, StreamName] | None = None
    for name in names[:200]:
        events = log.read_stream(StreamName(name))
        rating = (not _spans(events, killed_at), len(events), StreamName(name))
        best = rating if best is None else min(best, rating)
    return None if best is None else best[2]


def _spans(events: list[Recorded], killed_at: int) -> bool:
    """Tell whether a run, or a delivery, was open when the process was killed."""
    before = [event.type for event in events if event.recorded_at <= killed_at]
    opened = sum(kind in {"RunStarted", "DeliveryStarted"} for kind in before)
    closed = sum(kind in {"RunCompleted", "RunCancelled", "MessageSent"} for kind in before)
    return opened > closed


def _lines(events: list[Recorded], sealer: Sealer, killed_at: int) -> tuple[Line, ...]:
    first = events[0].recorded_at
    lines: list[Line] = []
    killed = False
    for recorded in events:
        if not killed and recorded.recorded_at > killed_at > 0:
            killed = True
            lines.append(Line((killed_at - first) / 1e6, "", "kill -9"))
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
            return f"turn claimed by process {event.incarnation}, attempt {event.attempt}"
        case e.TurnTakenOver():
            return f"taken over by process {event.incarnation}: its predecessor is gone"
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
