"""What a process has appended itself: followed to its end, and no further."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from app.conversation.stretches import Stretches
from eventstore.types import Position


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), max_size=30), st.integers(0, 40))
def test_a_stretch_is_followed_to_its_end_and_no_further(
    appends: list[tuple[int, int]], after: int
) -> None:
    ours, stretches, end = set[int](), Stretches(), 0
    for others, size in appends:
        first, end = end + others + 1, end + others + size
        ours.update(range(first, end + 1))
        stretches.add(Position(first), Position(end))
    assert stretches.end_of(Position(after)) == next(
        n - 1 for n in count(after + 1) if n not in ours
    )


def test_positions_that_come_out_of_their_order_are_not_noted() -> None:
    stretches = Stretches()
    for first, last in ((5, 6), (1, 2), (6, 7), (7, 8)):
        stretches.add(Position(first), Position(last))
    assert [stretches.end_of(Position(n)) for n in (0, 4)] == [0, 8]
