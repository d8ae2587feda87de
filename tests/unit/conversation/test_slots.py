"""Runs at once are shared out: no bot starves, nothing lies idle, caps hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.conversation.slots import Share, Slots


def taken(share: Share) -> int:
    """Take all that can be had now."""
    before = share.running
    while share.take():
        pass
    return share.running - before


def test_a_bot_alone_may_borrow_everything() -> None:
    slots = Slots(6)
    busy, idle = slots.share(), slots.share()
    assert taken(busy) == 6
    assert idle.running == 0


def test_what_was_borrowed_goes_first_to_whoever_has_less_than_its_share() -> None:
    slots = Slots(6)
    greedy, late = slots.share(), slots.share()
    woken: list[str] = []
    greedy.wake, late.wake = lambda: woken.append("greedy"), lambda: woken.append("late")
    taken(greedy)
    assert not late.take()
    for held in (1, 2, 3):
        greedy.give_back()
        assert woken[-1] == "late"
        assert not greedy.take(), "it would go before somebody who has less"
        assert late.take()
        assert late.running == held
    greedy.give_back()
    assert greedy.take(), "both have their share: it is the turn of who waits longer"


def test_a_bot_that_wants_nothing_more_is_passed_over() -> None:
    slots = Slots(2)
    one, other = slots.share(), slots.share()
    taken(one)
    assert not other.take()
    one.give_back()
    assert not one.take()
    woken: list[int] = []
    one.wake = lambda: woken.append(1)
    other.rest()
    assert woken
    assert one.take()


def test_a_bots_own_cap_holds_while_slots_are_free() -> None:
    slots = Slots(10)
    small = slots.share(most=3)
    assert taken(small) == 3
    assert slots.taken == 3


def test_a_bot_that_leaves_gives_everything_back() -> None:
    slots = Slots(4)
    one, other = slots.share(), slots.share()
    taken(one)
    one.leave()
    assert taken(other) == 4


@given(
    total=st.integers(1, 12),
    moves=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=200),
)
def test_no_bot_with_less_than_its_share_is_ever_overtaken(
    total: int, moves: list[tuple[int, bool]]
) -> None:
    slots = Slots(total)
    shares = [slots.share() for _ in range(4)]
    for number, ends in moves:
        share = shares[number]
        if ends and share.running:
            share.give_back()
            continue
        waiting = [s.running for s in shares if s.waits and s is not share]
        got = share.take()
        assert slots.taken == sum(s.running for s in shares) <= total
        if got:
            assert all(share.running - 1 <= held for held in waiting)
    for share in shares:  # nothing was lost on the way
        share.rest()
        for _ in range(share.running):
            share.give_back()
    assert taken(shares[0]) == total
