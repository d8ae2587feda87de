"""Who visits whom, and when: the first at once, the others a little later, nobody in vain."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.aggregates import BufferPolicy
from app.aggregates import open_work as w
from app.aggregates.events import ResetReason
from app.aggregates.user_state import BLANK, UserState
from app.conversation.activity import reset_of
from app.conversation.agenda import GRACE, STEP, Agenda, open_work
from eventstore.types import Micros, StreamName

NOW = Micros(1_800_000_000_000_000)
SECOND = 1_000_000
ANA = StreamName("user/ana")
MARGIN = 5 * SECOND
WAITING = UserState(pending=(w.Pending(b"r", 1, NOW, 1),))


class Others:
    """Three nodes: `mine`, `living` and `dead`."""

    def __init__(self, rank: int) -> None:
        self._rank = rank

    def is_mine(self, _: str, incarnation: str) -> bool:
        return incarnation == "mine"

    def is_alive(self, _: str, incarnation: str) -> bool:
        return incarnation in {"mine", "living"}

    def rank(self, name: str) -> int:
        assert name == ANA
        return self._rank


def agenda(rank: int = 0, *, now: Callable[[], Micros] = lambda: NOW) -> Agenda:
    return Agenda(
        Others(rank),
        now=now,
        buffer=BufferPolicy(),
        delivery_due=lambda d: d.retry_at if d.in_flight is None else d.in_flight + MARGIN,
    )


def run(incarnation: str) -> UserState:
    return UserState(run=w.Run("r", "node", incarnation, 1, 1, 2, 3))


def delivery(incarnation: str, *, node: str = "node", in_flight: int | None = None) -> UserState:
    return UserState(
        delivery=w.Delivery("r", 1, 1, NOW, node, incarnation, in_flight=in_flight, retry_at=7)
    )


def test_the_first_comes_when_a_turn_is_due() -> None:
    assert agenda().due_at(ANA, WAITING) == NOW + 5 * SECOND


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_others_come_later_one_after_the_other(rank: int) -> None:
    later = GRACE + (rank - 1) * STEP
    assert agenda(rank).due_at(ANA, WAITING) == NOW + 5 * SECOND + later


def test_to_what_has_waited_for_long_not_all_come_at_once() -> None:
    old = UserState(pending=(w.Pending(b"r", 1, NOW - 3600 * SECOND, 1),))
    times = [agenda(rank).due_at(ANA, old) for rank in (0, 1, 2)]
    assert times == [NOW - 3595 * SECOND, NOW + GRACE, NOW + GRACE + STEP]


def test_looking_again_and_again_does_not_put_off_who_comes_to_help() -> None:
    old = UserState(pending=(w.Pending(b"r", 1, NOW - 3600 * SECOND, 1),))
    time: int = NOW
    helper = agenda(2, now=lambda: Micros(time))
    first = NOW + GRACE + STEP
    assert helper.due_at(ANA, old) == first
    for _ in range(5):
        time += SECOND // 2
        assert helper.due_at(ANA, old) == first
    time = first  # it came, and could do nothing: not again at once
    assert helper.due_at(ANA, old) == first + GRACE + STEP
    helper.due_at(ANA, BLANK)
    time += SECOND
    assert helper.due_at(ANA, old) == time + GRACE + STEP, "what was answered is forgotten"


def test_where_nothing_is_open_nobody_comes() -> None:
    assert agenda().due_at(ANA, BLANK) is None
    assert agenda(1).due_at(ANA, BLANK) is None


def test_what_a_living_node_holds_is_its_own_affair() -> None:
    for state in (run("living"), delivery("living")):
        assert agenda().due_at(ANA, state) is None
        assert agenda().is_held(state)


def test_what_this_process_holds_is_not_held_by_another() -> None:
    assert agenda().due_at(ANA, run("mine")) is None
    assert agenda(1).due_at(ANA, delivery("mine")) == 7
    assert not agenda().is_held(run("mine"))


@pytest.mark.parametrize("state", [run("dead"), delivery("dead"), delivery("", node="")])
def test_what_nobody_holds_is_the_first_one_s_at_once(state: UserState) -> None:
    due = agenda().due_at(ANA, state)
    assert due is not None
    assert due <= NOW
    assert agenda(1).due_at(ANA, state) == NOW + GRACE
    assert not agenda().is_held(state)


def test_a_part_in_flight_is_waited_for_by_whoever_takes_over() -> None:
    deadline = NOW + 9 * SECOND
    assert agenda().due_at(ANA, delivery("dead", in_flight=deadline)) == deadline + MARGIN
    late = agenda(1).due_at(ANA, delivery("dead", in_flight=deadline))
    assert late == deadline + MARGIN + GRACE


# --- the record of an activity -------------------------------------------------------------------

TEN_MINUTES = 600 * SECOND
TOUCHED = UserState(activity_at=NOW, touched_at=NOW)


def test_an_activity_is_recorded_ten_minutes_after_the_last_event_by_the_first() -> None:
    assert agenda().due_at(ANA, TOUCHED) == NOW + TEN_MINUTES
    assert agenda(1).due_at(ANA, TOUCHED) == NOW + TEN_MINUTES + GRACE
    assert not agenda().is_activity_due(TOUCHED)
    past = UserState(activity_at=1, touched_at=NOW - TEN_MINUTES)
    assert agenda().is_activity_due(past)
    assert open_work(TOUCHED, NOW) == "record"


def test_a_turn_that_waits_longer_does_not_hold_the_record_up() -> None:
    later = NOW + 2 * TEN_MINUTES
    waiting = UserState(
        pending=WAITING.pending, retry_at=later, activity_at=NOW, touched_at=NOW - SECOND
    )
    assert agenda().due_at(ANA, waiting) == NOW + TEN_MINUTES - SECOND
    assert agenda().due_at(ANA, WAITING) == NOW + 5 * SECOND
    assert open_work(waiting, NOW) == "work"


def test_who_was_never_active_has_nothing_to_record() -> None:
    imported = UserState(touched_at=NOW)
    assert agenda().due_at(ANA, imported) is None
    assert open_work(imported, None) == "nothing"


@pytest.mark.parametrize(
    ("recorded", "thread", "last_reset", "told"),
    [
        (None, "a", None, ("user_not_found", 0)),
        (None, None, None, (None, 0)),
        ((600, "a"), "a", None, (None, 0)),
        ((0, None), "a", None, ("first_time", 0)),
        ((600, "a"), "b", "thread_changed", ("thread_changed", 600)),
        ((600, "a"), "b", "gone", ("thread_changed", 0)),
    ],
)
def test_why_a_record_does_not_add_up_is_told_once_with_what_was_lost(
    recorded: tuple[int, str | None] | None,
    thread: str | None,
    last_reset: ResetReason | None,
    told: tuple[str | None, int],
) -> None:
    state = UserState(
        recorded=None if recorded is None else w.Activity(1, *recorded),
        thread=None if thread is None else w.Thread(thread, 1, 450),
        last_reset=last_reset,
    )
    assert reset_of(state) == told
