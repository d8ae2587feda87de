"""Given past events, when a command, then these events: the words that the tests here use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from app.aggregates import Apology, BufferPolicy, Spent, User, fold
from app.aggregates import events as e
from app.aggregates.user_state import BLANK, UserState
from eventstore.codec import Event
from eventstore.sealing import Sealed
from eventstore.types import IdempotencyKey, Micros, StreamName, Version

T = TypeVar("T")

STREAM = StreamName("user/7f3a")
SECOND = 1_000_000
START = 1_700_000_000 * SECOND
POLICY = BufferPolicy()
NOTHING: tuple[Event, ...] = ()
Step = Event | tuple[float, Event]
"""An event, at `START` or so many seconds later."""


def at(seconds: float) -> Micros:
    """The instant so many seconds after the start."""
    return Micros(START + round(seconds * SECOND))


def sealed(text: str = "x") -> Sealed[Any]:
    """Something sealed; what is in it does not matter to a decision."""
    return Sealed(20264, b"box:" + text.encode(), text.encode().ljust(32, b"#")[:32])


def ref(number: int) -> IdempotencyKey:
    """The ref of the person's message `number`."""
    return IdempotencyKey(number.to_bytes(16))


def key(name: str) -> IdempotencyKey:
    """A key that is not a ref."""
    return IdempotencyKey(name.encode().ljust(16, b".")[:16])


def registered() -> e.UserRegistered:
    return e.UserRegistered(gateway="whapi", chat=sealed("chat"))


def message(number: int, *, answerable: bool = True) -> e.MessageReceived:
    return e.MessageReceived(
        ref=ref(number), kind="text", content=sealed(str(number)), answerable=answerable
    )


def run_started(run: str, up_to: int, attempt: int = 1) -> e.RunStarted:
    return e.RunStarted(
        run=run, node="a", incarnation="1", attempt=attempt, up_to=up_to, cor=run, cau=up_to
    )


def run_completed(run: str, parts: int = 1, cau: int | None = None) -> e.RunCompleted:
    return e.RunCompleted(
        run=run, response="resp", reply=sealed("reply"), parts=parts, cor=run, cau=cau
    )


def parked(up_to: int, run: str = "", reason: e.ParkReason = "failed") -> e.TurnParked:
    apology = sealed("sorry") if run else None
    return e.TurnParked(reason=reason, attempts=3, up_to=up_to, run=run, apology=apology)


def part_started(run: str, part: int = 0, deadline: int = START) -> e.DeliveryStarted:
    return e.DeliveryStarted(run=run, part=part, deadline=deadline)


def part_sent(run: str, part: int = 0, number: int = 900) -> e.MessageSent:
    return e.MessageSent(run=run, part=part, ref=ref(number), sent=sealed("sent"))


def tokens(total: int, thread: str = "conv_1", run: str = "r1") -> e.TokensIncremented:
    return e.TokensIncremented(thread=thread, run=run, total=total)


APOLOGY = Apology("r1-apology", sealed("sorry"))
SPENT = Spent(total=150, input=100, output=50, cached=20, reasoning=5, model="gpt")


def replay(*steps: Step) -> tuple[UserState, Version]:
    """The state after the events, each an append of its own."""
    state, version = BLANK, 0
    for step in steps:
        seconds, event = step if isinstance(step, tuple) else (0.0, step)
        state, version = fold(state, version, [event], at(seconds))
    return state, Version(version)


class Given:
    """A user with a past. `when` runs a command, `then` says which events it triggered."""

    def __init__(self, *steps: Step, read_only: bool = False) -> None:
        state, version = replay(*steps)
        self.user = User(STREAM, state, version, read_only=read_only)

    @property
    def state(self) -> UserState:
        return self.user.state

    def when(self, command: Callable[[User], T]) -> When[T]:
        return When(self.user, command(self.user))


class When(Generic[T]):
    """What a command answered and triggered."""

    def __init__(self, user: User, answer: T) -> None:
        self.user = user
        self.state = user.state
        self.answer = answer
        self.triggered = user.collect_events()

    def then(self, *events: Event) -> When[T]:
        assert [event for event, _ in self.triggered] == list(events)
        return self

    def and_answers(self, answer: object) -> When[T]:
        assert self.answer == answer
        return self
