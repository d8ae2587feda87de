"""What the tables must hold, told in the plainest way: one pass over the whole log, no batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from app.aggregates import events as e
from app.aggregates import gateway_events as g
from app.aggregates.cleanup_events import CleanupRecorded
from app.projections.content import Content as Tables
from app.projections.open_turns import TURN_EVENTS, OpenTurn
from app.projections.turn_latency import row_of
from eventstore.codec import Event
from eventstore.store import LogReader
from eventstore.types import Position
from tests.unit.projections.histories import CODEC

Entry = tuple[int, str, int, Event]
"""Position, stream, time, event."""
Rows = list[list[object]]


def naive(log: LogReader, up_to: int | None = None) -> Tables:
    """What every table of every model must hold."""
    everything: list[Entry] = [
        (r.position, r.stream, r.recorded_at, CODEC.decode(r.type, r.state))
        for r in log.read(limit=1_000_000, up_to=None if up_to is None else Position(up_to))
    ]
    people: dict[str, list[Entry]] = {}
    for entry in everything:
        if entry[1].startswith("user/"):
            people.setdefault(entry[1][5:], []).append(entry)
    return {
        "thread_map": _thread_map(people),
        "token_totals": _token_totals(people),
        "client_view": _client_view(people),
        "cleanup_log": _cleanup_log(everything),
        "usage": _usage(everything),
        "turn_latency": _turn_latency(people),
        "thread_changes": _thread_changes(everything),
        "media": _media(everything),
        "gateway_health": _gateway_health(everything),
    }


def _table(columns: str, rows: Iterable[Sequence[object]]) -> Rows:
    return [list(columns.split()), *sorted(map(list, rows), key=repr)]


def _count(seen: list[Entry], kind: type[Event]) -> int:
    return sum(isinstance(event, kind) for *_, event in seen)


def _last(seen: list[Entry], *kinds: type[Event]) -> int | None:
    return max((at for _, _, at, event in seen if isinstance(event, kinds)), default=None)


def _when(at: int, event: Event) -> int:
    """What was imported happened at its own time."""
    imported = isinstance(event, (e.MessageImported, e.ThreadStarted, e.ThreadReset))
    return event.at or at if imported else at


def _hour(at: int) -> str:
    return datetime.fromtimestamp(at // 1_000_000, UTC).strftime("%Y-%m-%dT%H:00Z")


# -- a row a user ---------------------------------------------------------------------------------

Linked = tuple[str | None, int | None]
"""The current conversation and since when."""


def _linked(before: Linked, at: int, event: Event) -> Linked:
    if isinstance(event, e.ThreadStarted):
        return event.thread, event.at or at
    if isinstance(event, e.ThreadReset) and event.thread == before[0] and event.reason != "empty":
        return None, None
    return before


def _thread(seen: list[Entry]) -> Linked:
    thread: Linked = (None, None)
    for _, _, at, event in seen:
        thread = _linked(thread, at, event)
    return thread


def _told(seen: list[Entry]) -> list[int]:
    """When an import says that somebody was active."""
    recorded = [event for *_, event in seen if isinstance(event, e.ActivityRecorded)]
    return [event.last_activity for event in recorded if event.at is not None]


def _thread_map(people: dict[str, list[Entry]]) -> dict[str, Rows]:
    talk = (e.MessageReceived, e.MessageSent, e.HumanMessageSent, e.MessageImported)
    wanted = (*talk, e.UserRegistered, e.ThreadStarted, e.ThreadReset, e.ActivityRecorded)
    rows = []
    for user, seen in people.items():
        if any(isinstance(event, wanted) for *_, event in seen):
            reasons = [event.reason for *_, event in seen if isinstance(event, e.ThreadReset)]
            talked = [_when(at, event) for _, _, at, event in seen if isinstance(event, talk)]
            talked += _told(seen)
            rows.append(
                [
                    user,
                    *_thread(seen),
                    reasons[-1] if reasons else None,
                    _last(seen, e.UserRegistered),
                    max(talked, default=None),
                    _count(seen, e.MessageReceived),
                    _count(seen, e.MessageSent),
                ]
            )
    columns = (
        "user thread started_at reset_reason registered_at last_activity messages_in messages_out"
    )
    return {"thread_map": _table(columns, rows)}


def _token_totals(people: dict[str, list[Entry]]) -> dict[str, Rows]:
    rows = [row for user, seen in people.items() if (row := _token_row(user, seen))]
    columns = "user thread tokens total left_behind unknown_runs"
    return {"token_totals": _table(columns, rows)}


def _token_row(user: str, seen: list[Entry]) -> list[object] | None:
    counted = (e.TokensIncremented, e.ThreadStarted, e.ThreadReset, e.UsageUnknown)
    if not any(isinstance(event, counted) for *_, event in seen):
        return None
    now, total, left = 0, 0, 0
    linked: Linked = (None, None)
    for _, _, at, event in seen:
        before = linked[0]
        linked = _linked(linked, at, event)
        if isinstance(event, e.TokensIncremented):
            total += max(0, event.total)
            now += max(0, event.total) if before is not None and event.thread == before else 0
        if isinstance(event, e.ThreadStarted):
            now, left = 0, left + now
        if isinstance(event, e.ThreadReset):
            left += event.left_behind
            now = 0 if event.thread == before else now
    return [user, _thread(seen)[0], now, total, left, _count(seen, e.UsageUnknown)]


def _client_view(people: dict[str, list[Entry]]) -> dict[str, Rows]:
    rows = [row for user, seen in people.items() if (row := _client_row(user, seen))]
    columns = "user profile chat named_at thread last_activity tokens"
    return {"client_view": _table(columns, rows)}


def _client_row(user: str, seen: list[Entry]) -> list[object] | None:
    profile: bytes | None = None
    chat: bytes | None = None
    named: int | None = None
    last: int | None = None
    thread: str | None = None
    tokens, known = 0, False
    for position, _, _, event in seen:
        match event:
            case e.MessageReceived():
                named = position
            case e.UserRegistered():
                chat = msgspec.msgpack.encode(event.chat)
            case e.ProfileUpdated():
                profile = msgspec.msgpack.encode(event.profile)
            case e.ThreadStarted():
                tokens = tokens if thread == event.thread else 0
                thread = event.thread
            case e.ThreadReset():
                if event.thread == thread:
                    tokens = 0
                    thread = thread if event.reason == "empty" else None
            case e.ActivityRecorded():
                last, tokens, thread = event.last_activity, event.tokens, event.thread
            case _:
                continue
        known = True
    return [user, profile, chat, named, thread, last, tokens] if known else None


def _turn_latency(people: dict[str, list[Entry]]) -> dict[str, Rows]:
    turns, left_open = [], []
    for user, seen in people.items():
        now = OpenTurn()
        for position, _, at, event in seen:
            if isinstance(event, TURN_EVENTS):
                ended = now.take(at, event)
                if ended is not None:
                    turns.append(row_of(position, user, ended))
        if now != OpenTurn():
            left_open.append([user, msgspec.msgpack.encode(now)])
    columns = (
        "position hour user outcome messages runs ended_at gathering waiting retrying submitting"
        " thinking handing_over total reply"
    )
    return {"open_turns": _table("user state", left_open), "turns": _table(columns, turns)}


# -- clean-ups ------------------------------------------------------------------------------------


def _cleanup_log(everything: list[Entry]) -> dict[str, Rows]:
    threads: Rows = []
    runs: dict[str, list[object]] = {}
    for position, stream, at, event in everything:
        if isinstance(event, e.ThreadReset) and event.reason == "cleanup":
            run = event.cor or f"position-{position}"
            runs.setdefault(run, [run, at, None, None, None])
            threads.append([position, run, stream[5:], event.thread, event.left_behind, at])
        elif isinstance(event, CleanupRecorded):
            row = runs.setdefault(event.cleanup, [event.cleanup, at, None, None, None])
            row[2:] = [at, event.limit, event.by]
    return {
        "cleaned_threads": _table("position cleanup user thread tokens at", threads),
        "cleanups": _table("id began_at recorded_at token_limit by", runs.values()),
    }


# -- counts by the hour ---------------------------------------------------------------------------


def _usage(everything: list[Entry]) -> dict[str, Rows]:
    rows: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * 9)
    for _, _, at, event in everything:
        if isinstance(event, e.UsageUnknown):
            rows[_hour(at), ""][8] += 1
        elif isinstance(event, e.TokensIncremented) and event.total > 0:
            split = event.input + event.output == event.total and event.cached <= event.input
            told = [event.input, event.output, event.cached] if split else [0, 0, 0]
            blurred = [0, 0] if split else [1, event.total]
            news = [1, event.total, *told, event.reasoning, *blurred, 0]
            row = rows[_hour(at), event.model]
            row[:] = [a + b for a, b in zip(row, news, strict=True)]
    columns = (
        "hour model runs total input output cached reasoning undivided_runs undivided_tokens"
        " unknown_runs"
    )
    return {"usage_hours": _table(columns, [[*key, *row] for key, row in rows.items()])}


def _thread_changes(everything: list[Entry]) -> dict[str, Rows]:
    rows: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * 4)
    for _, _, at, event in everything:
        if isinstance(event, e.ThreadStarted):
            rows[_hour(_when(at, event)), event.reason][0] += 1
        elif isinstance(event, e.ThreadReset):
            row = rows[_hour(_when(at, event)), event.reason]
            left = event.left_behind
            row[1:] = [row[1] + 1, row[2] + left, max(row[3], left)]
    columns = "hour reason started resets left_behind most_left_behind"
    return {"thread_changes": _table(columns, [[*key, *row] for key, row in rows.items()])}


def _media(everything: list[Entry]) -> dict[str, Rows]:
    rows: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for _, _, at, event in everything:
        if isinstance(event, e.MessageReceived):
            row = rows[_hour(at), event.kind]
            row[:] = [row[0] + 1, row[1] + int(event.answerable)]
        elif isinstance(event, e.MessageImported) and event.sender == "person":
            rows[_hour(_when(at, event)), event.kind][0] += 1
    columns = "hour kind messages answerable"
    return {"media_hours": _table(columns, [[*key, *row] for key, row in rows.items()])}


def _gateway_health(everything: list[Entry]) -> dict[str, Rows]:
    rows: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0] * 4)
    for _, _, at, event in everything:
        named = _named(event)
        if named is None:
            continue
        row = rows[_hour(at), *named]
        row[0] += 1
        if isinstance(event, e.MessageReceived) and event.at is not None:
            late = max(0, at - event.at)
            row[1:] = [row[1] + 1, row[2] + late, max(row[3], late)]
    columns = "hour what detail events timed late latest"
    return {"gateway_hours": _table(columns, [[*key, *row] for key, row in rows.items()])}


def _named(event: Event) -> tuple[str, str] | None:  # noqa: C901, PLR0911, PLR0912 - plain
    match event:
        case e.MessageReceived():
            return "message received", ""
        case e.HumanMessageSent():
            return "human message", ""
        case e.MessageEdited():
            return "edit received", ""
        case e.MessageDeleted():
            return "delete received", ""
        case e.MessageEchoed():
            return "echo received", ""
        case e.MessageStatusChanged():
            return "status received", event.status
        case e.DeliveryStarted():
            return "send started", ""
        case e.MessageSent():
            return "sent", event.adopted
        case e.DeliveryFailed():
            return "send given up" if event.retry_at is None else "send put back", event.code
        case e.DeliveryUncertain():
            return "send uncertain", ""
        case e.RunStarted():
            return "run started", ""
        case e.RunCompleted():
            return "run completed", ""
        case e.RunFailed():
            return "run failed", event.code
        case e.RunCancelled():
            return "run cancelled", event.reason
        case e.TurnParked():
            return "turn parked", event.reason
        case g.OtherRecorded():
            return "other received", event.kind
        case g.ItemRejected():
            return "item rejected", event.reason
        case g.EarlyDelete():
            return "early delete", ""
        case _:
            return None
