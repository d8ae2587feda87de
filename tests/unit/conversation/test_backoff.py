"""How long to wait before the next attempt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.conversation.backoff import MAX_RETRY_AFTER_SECONDS, delay

ATTEMPTS = st.integers(1, 10_000)
JITTER = st.floats(0, 1, exclude_max=True)


def test_waits_double_up_to_ten_seconds() -> None:
    assert [delay(n, retry_after=None, jitter=0) for n in (1, 2, 3, 4, 5)] == [1, 2, 4, 5, 5]
    assert delay(9, retry_after=None, jitter=0.999) < 10


@given(ATTEMPTS, JITTER)
def test_a_wait_without_a_demand_is_between_one_and_ten_seconds(
    attempt: int, jitter: float
) -> None:
    assert 1 <= delay(attempt, retry_after=None, jitter=jitter) <= 10


@given(ATTEMPTS, JITTER, st.floats(0, 1e9))
def test_what_the_provider_demands_is_honoured_up_to_two_minutes(
    attempt: int, jitter: float, demanded: float
) -> None:
    waited = delay(attempt, retry_after=demanded, jitter=jitter)
    assert waited >= min(demanded, MAX_RETRY_AFTER_SECONDS)
    assert 1 <= waited <= MAX_RETRY_AFTER_SECONDS


def test_those_who_were_told_the_same_do_not_come_back_together() -> None:
    assert delay(1, retry_after=5, jitter=0.25) != delay(1, retry_after=5, jitter=0.75)
