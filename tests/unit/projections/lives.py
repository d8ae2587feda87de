"""Random histories that really happen: users decide, at chance, and their events are appended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from hypothesis import strategies as st

from app.aggregates import Apology, BufferPolicy, Spent, User, fold
from app.aggregates import events as e
from app.aggregates.user_state import BLANK, UserState
from eventstore.codec import Event
from eventstore.sealing import Sealed
from eventstore.types import IdempotencyKey, Micros, Position, StreamName, Version
from tests.unit.projections.histories import CODEC, SEALED, TestLog

AT_ONCE = BufferPolicy(quiet=0, longest=0, most=1)
BOX: Sealed[object] = Sealed(**SEALED)  # type: ignore[arg-type]
MODELS_BILLED = ("gpt-5-mini", "gpt-5-mini-2025-08-07", "nobody-knows", "")
LIMIT = 500
Script = Sequence[tuple[str, int, int]]
"""Who, which of the commands, and a number that the command makes something of."""


class World:
    """Some users and their log."""

    def __init__(self, history: TestLog) -> None:
        self.history = history
        self.states: dict[str, tuple[UserState, int]] = {}
        self.numbers = 0

    def play(self, script: Script) -> None:
        """Let everything in the script happen."""
        for name, command, number in script:
            state, version = self.states.get(name, (BLANK, 0))
            user = User(StreamName(f"user/{name}"), state, Version(version))
            self.numbers += 1
            now = self.history.log.now()
            COMMANDS[command % len(COMMANDS)](self, user, number, now)
            events = [event for event, _ in user.collect_events()]
            if events:
                at = self._append(name, events)
                self.states[name] = fold(state, version, events, at)

    def _append(self, name: str, events: Sequence[Event]) -> int:
        position = self.history.append_raw(name, *map(CODEC.encode, events))
        recorded = self.history.log.event_at(Position(position))
        assert recorded is not None
        return recorded.recorded_at

    def ref(self, number: int) -> IdempotencyKey:
        """One of the last few messages' refs, or a new one."""
        return IdempotencyKey(max(0, self.numbers - number % 6).to_bytes(16))


def _run(user: User) -> str:
    return user.state.run.id if user.state.run is not None else "none"


def _register(w: World, user: User, n: int, now: Micros) -> None:
    user.register("whapi", BOX, now=now)  # type: ignore[arg-type]


def _profile(w: World, user: User, n: int, now: Micros) -> None:
    user.update_profile(BOX, now=now)  # type: ignore[arg-type]


def _receive(w: World, user: User, n: int, now: Micros) -> None:
    ref = IdempotencyKey(w.numbers.to_bytes(16))
    kind, at = ("text", "image", "voice")[n % 3], (None, now - 5_000_000, now + 9)[n % 3]
    user.receive_message(ref, kind, BOX, now=now, at=at, answerable=n % 7 != 0)  # type: ignore[arg-type]


def _delete(w: World, user: User, n: int, now: Micros) -> None:
    ref = w.ref(n)
    known = any(entry.ref == ref for entry in user.state.pending)
    user.delete_message(ref, key=ref, now=now, early=not known)


def _edit(w: World, user: User, n: int, now: Micros) -> None:
    user.edit_message(w.ref(n), BOX, key=w.ref(n), now=now, early=n % 2 == 0)  # type: ignore[arg-type]


def _status(w: World, user: User, n: int, now: Micros) -> None:
    user.status_changed(w.ref(n), ("sent", "read", "failed")[n % 3], key=w.ref(n), now=now)


def _human(w: World, user: User, n: int, now: Micros) -> None:
    user.human_wrote(IdempotencyKey(w.numbers.to_bytes(16)), BOX, now=now)  # type: ignore[arg-type]


def _claim(w: World, user: User, n: int, now: Micros) -> None:
    user.claim(f"run{w.numbers}", node="n", incarnation="1", now=now, policy=AT_ONCE)


def _thread(w: World, user: User, n: int, now: Micros) -> None:
    user.start_thread(f"conv_{n % 4}", now=now)


def _submit(w: World, user: User, n: int, now: Micros) -> None:
    user.run_submitted(_run(user), "resp", now=now)


def _billed(n: int) -> Spent:
    fresh = n % 300
    total = fresh + n % 50 + (n % 5 == 0)
    return Spent(total, fresh, n % 50, fresh // 2, 3, MODELS_BILLED[n % 4])


def _complete(w: World, user: User, n: int, now: Micros) -> None:
    user.run_completed(_run(user), "resp", reply=BOX, parts=n % 3, billed=_billed(n), now=now)  # type: ignore[arg-type]


def _fail(w: World, user: User, n: int, now: Micros) -> None:
    apology = Apology(f"sorry{w.numbers}", BOX)  # type: ignore[arg-type]
    user.run_failed(
        _run(user),
        ("timeout", "server_error")[n % 2],
        billed="unknown" if n % 3 == 0 else "nothing",
        now=now,
        retry_at=None if n % 4 == 0 else now,
        apology=apology,
    )


def _cancel(w: World, user: User, n: int, now: Micros) -> None:
    reason: e.CancelReason = "orphaned" if n % 2 else "thread_busy"
    user.run_cancelled(_run(user), reason, billed=_billed(n), now=now, retry_at=now)


def _retry(w: World, user: User, n: int, now: Micros) -> None:
    if n % 3:
        user.turn_retried("ops", now=now)
    else:
        user.turn_dropped("ops", now=now)


def _deliver(w: World, user: User, n: int, now: Micros) -> None:
    delivery = user.state.delivery
    if delivery is None:
        return
    run, part, attempt = delivery.run, delivery.next_part, delivery.attempt
    if delivery.in_flight is None:
        user.delivery_started(run, part, deadline=now, incarnation="1", now=now)
    elif n % 5 == 0:
        later = now if n % 2 else None
        user.delivery_failed(run, part, "refused", attempt=attempt, now=now, retry_at=later)
    elif n % 5 == 1:
        user.delivery_uncertain(run, part, attempt=attempt, now=now)
    else:
        ref = IdempotencyKey(w.numbers.to_bytes(16))
        user.message_sent(run, part, ref=ref, sent=BOX, key=None, now=now)  # type: ignore[arg-type]


def _activity(w: World, user: User, n: int, now: Micros) -> None:
    user.record_activity(now=now, delay=0)


def _import(w: World, user: User, n: int, now: Micros) -> None:
    before, key = Micros(now - n * 10_000_000_000), IdempotencyKey(w.numbers.to_bytes(16))
    if n % 4 < 2:
        sender: Literal["person", "business"] = "person" if n % 4 else "business"
        user.import_message(key, "text", BOX, sender=sender, at=before, now=now)  # type: ignore[arg-type]
    elif n % 4 == 2:
        user.import_thread(f"thread_{n % 3}", as_of=before, at=before, now=now)
    else:
        user.import_activity(as_of=before, now=now)


def _clean_up(w: World, user: User, n: int, now: Micros) -> None:
    cleanup = None if n % 3 == 0 else f"cleanup{n % 2}"
    if n % 4 == 0:
        w.history.clean_up(f"cleanup{n % 2}", 1, n)
    user.clean_up(limit=LIMIT, now=now, cleanup=cleanup)


def _reset(w: World, user: User, n: int, now: Micros) -> None:
    if user.state.thread is not None:
        reason: e.ResetReason = ("gone", "expired", "empty")[n % 3]
        user.reset_thread(reason, thread=user.state.thread.id, now=now)


COMMANDS: list[Callable[[World, User, int, Micros], None]] = [
    *(_receive, _claim, _complete, _deliver, _deliver, _thread, _submit, _fail, _cancel),
    *(
        _register,
        _profile,
        _delete,
        _edit,
        _status,
        _human,
        _retry,
        _activity,
        _clean_up,
        _reset,
        _import,
    ),
]
TURN = (0, 1, 5, 6, 2, 3, 4, 3, 4)
"""A whole turn, by the numbers of its commands."""

_STEP = st.tuples(st.sampled_from("abc"), st.integers(0, len(COMMANDS) - 1), st.integers(0, 900))
_TURN = st.builds(
    lambda name, number: [(name, command, number + 1) for command in TURN],
    st.sampled_from("abc"),
    st.integers(0, 900),
)
SCRIPTS: st.SearchStrategy[list[tuple[str, int, int]]] = st.lists(
    st.one_of(_TURN, st.lists(_STEP, min_size=1, max_size=6)), min_size=1, max_size=8
).map(lambda parts: [step for part in parts for step in part])
