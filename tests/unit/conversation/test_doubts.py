"""Parts in doubt are looked for again later, each at its own time, and never for ever."""

from __future__ import annotations

import msgspec

from app.aggregates.open_work import Delivery, Sign
from app.conversation.doubts import LOOKS_AT_ONCE, Doubts

SECOND = 1_000_000
PART = Delivery("run_1", 3, 1, 0, "n", "i", in_flight=50)


def looked(times: int, retry_after: float | None = None) -> tuple[Doubts, list[int]]:
    """Doubts about one part that was put off so often, and the pauses in whole seconds."""
    doubts, pauses = Doubts(lambda: 0.5), []
    for _ in range(times):
        doubts.put_off(PART, now=0, retry_after=retry_after)
        pauses.append(doubts.due_at(PART) // SECOND)
    return doubts, pauses


def test_the_pauses_grow_up_to_ten_seconds() -> None:
    assert looked(6)[1] == [1, 3, 6, 7, 7, 7]


def test_the_gateways_own_demand_is_kept() -> None:
    assert looked(1, retry_after=30.0)[1] == [30]


def test_what_was_never_put_off_or_is_settled_is_due_at_once() -> None:
    doubts, _ = looked(2)
    assert doubts.due_at(msgspec.structs.replace(PART, run="run_2")) == 0
    doubts.settle(PART)
    assert (doubts.due_at(PART), len(doubts)) == (0, 0)


def test_a_new_start_of_the_part_owes_nothing_to_the_one_before() -> None:
    doubts, _ = looked(3)
    assert doubts.due_at(msgspec.structs.replace(PART, in_flight=99)) == 0


def test_a_new_sign_is_worth_a_look_at_once() -> None:
    doubts, _ = looked(3)
    signed = msgspec.structs.replace(PART, signs=(Sign(b"r", 9, "echo"),))
    assert doubts.due_at(signed) == 0
    doubts.put_off(signed, now=0, retry_after=None)
    assert doubts.due_at(signed) > 0


def test_what_others_have_settled_is_forgotten_in_the_end() -> None:
    doubts, _ = looked(1)
    doubts.put_off(msgspec.structs.replace(PART, next_part=1), now=600 * SECOND, retry_after=None)
    assert len(doubts) == 1


def test_while_lists_cannot_be_read_few_look_at_once() -> None:
    doubts = Doubts(lambda: 0.0)

    def crowded(looks: int) -> bool:
        if not looks:
            return doubts.crowded
        with doubts.look():
            return crowded(looks - 1)

    assert not crowded(LOOKS_AT_ONCE + 1), "all lists could be read"
    doubts.put_off(PART, now=0, retry_after=None)
    assert crowded(LOOKS_AT_ONCE)
    assert not crowded(LOOKS_AT_ONCE - 1)
