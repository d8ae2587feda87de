"""The store's clock never stands still and is never behind the log."""

from __future__ import annotations

import pytest

from eventstore.clock import StoreClock
from eventstore.types import Micros

DAY = 86_400_000_000


class Hands:
    """A wall clock and a monotonic one that a test moves."""

    def __init__(self) -> None:
        self.wall = 1_000_000_000_000
        self.monotonic = 5_000_000

    def pass_time(self, micros: int) -> None:
        self.wall += micros
        self.monotonic += micros


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def clock(hands: Hands) -> StoreClock:
    return StoreClock(lambda: Micros(hands.wall), lambda: Micros(hands.monotonic))


def test_it_is_the_wall_clock_as_long_as_that_is_not_behind_the_log(
    hands: Hands, clock: StoreClock
) -> None:
    clock.observe(Micros(hands.wall - 5))
    assert clock.now() == hands.wall
    clock.observe(Micros(hands.wall + 500))  # a burst of appends is 1 µs apart
    assert clock.now() == hands.wall


def test_a_wall_clock_that_was_set_back_does_not_stop_the_logs_time(
    hands: Hands, clock: StoreClock
) -> None:
    recorded_at = hands.wall + DAY
    clock.observe(Micros(recorded_at))
    hands.pass_time(5_000_000)
    assert clock.now() == recorded_at + 5_000_000


def test_it_is_the_wall_clock_again_when_that_has_caught_up(
    hands: Hands, clock: StoreClock
) -> None:
    clock.observe(Micros(hands.wall + 3_000_000))
    hands.wall += 60_000_000
    assert clock.now() == hands.wall
    hands.pass_time(1)
    assert clock.now() == hands.wall


def test_a_clock_set_back_is_said_in_the_log_file(
    hands: Hands, clock: StoreClock, caplog: pytest.LogCaptureFixture
) -> None:
    clock.observe(Micros(hands.wall + DAY))
    assert "CLOCK_BEHIND_LOG" in caplog.text
