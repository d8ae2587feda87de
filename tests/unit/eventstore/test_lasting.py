"""A trouble that lasts is said at once, then ever more seldom, and its end is said once."""

from __future__ import annotations

from eventstore.lasting import Lasting


def test_a_trouble_is_said_at_growing_intervals_of_five_minutes_at_most() -> None:
    seconds = [0.0]
    lasting = Lasting(lambda: seconds[-1])
    said = []
    for now in range(1200):
        seconds.append(float(now))
        if lasting.met():
            said.append(now)
    assert said == [0, 2, 6, 14, 30, 62, 126, 254, 510, 810, 1110]


def test_its_end_is_said_once_and_the_next_one_at_once() -> None:
    lasting = Lasting(lambda: 0.0)
    assert not lasting.over()
    assert lasting.met()
    assert not lasting.met()
    assert lasting.over()
    assert not lasting.over()
    assert lasting.met()
