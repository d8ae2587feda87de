"""When a provider is down it is asked now and then, and used again as soon as it answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.conversation.breaker import Breaker


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker(failures=3, cool_down=10)
    for _ in range(3):
        breaker.record(ok=False, now=at)
    return breaker


def test_calls_go_out_while_the_provider_answers() -> None:
    breaker = Breaker(failures=3, cool_down=10)
    for now in range(10):
        assert breaker.allow(now) == 0
        breaker.record(ok=now % 3 == 0, now=now)
    assert breaker.state == "closed"


def test_failures_in_a_row_stop_the_calls_for_the_cool_down() -> None:
    breaker = opened(at=100)
    assert breaker.state == "open"
    assert breaker.allow(100) == 10
    assert breaker.allow(109.5) == 0.5


def test_after_the_cool_down_one_call_goes_out_and_the_others_wait() -> None:
    breaker = opened()
    assert breaker.allow(10) == 0
    assert breaker.state == "half-open"
    assert breaker.allow(10) == 10
    assert breaker.allow(12) == 8


def test_a_probe_that_succeeds_lets_everything_through() -> None:
    breaker = opened()
    breaker.allow(10)
    breaker.record(ok=True, now=11)
    assert breaker.state == "closed"
    assert [breaker.allow(11) for _ in range(5)] == [0] * 5
    breaker.record(ok=False, now=12)
    assert breaker.state == "closed"


def test_a_probe_that_fails_starts_another_cool_down() -> None:
    breaker = opened()
    breaker.allow(10)
    breaker.record(ok=False, now=14)
    assert breaker.allow(15) == 9
    assert breaker.allow(24) == 0


def test_a_probe_that_is_never_heard_of_gives_way_to_another() -> None:
    breaker = opened()
    assert breaker.allow(10) == 0
    assert breaker.allow(19) > 0
    assert breaker.allow(20) == 0


@pytest.mark.parametrize("ok", [True, False])
def test_calls_from_before_that_end_during_the_cool_down_say_nothing_about_now(ok: bool) -> None:
    breaker = opened()
    breaker.record(ok=ok, now=5)
    assert breaker.state == "open"
    assert breaker.allow(9) == 1
    assert breaker.allow(10) == 0


@pytest.mark.parametrize(("failures", "cool_down"), [(0, 10.0), (3, 0.0)])
def test_a_breaker_that_could_not_work_is_refused(failures: int, cool_down: float) -> None:
    with pytest.raises(ValueError, match="a breaker needs"):
        Breaker(failures=failures, cool_down=cool_down)


@given(
    st.lists(st.tuples(st.sampled_from(["allow", "ok", "failed"]), st.floats(0, 30)), max_size=60)
)
def test_whoever_waits_as_told_is_let_through_or_told_again_but_never_longer_than_the_cool_down(
    steps: list[tuple[str, float]],
) -> None:
    breaker = Breaker(failures=2, cool_down=10)
    now = 0.0
    for step, later in steps:
        now += later
        if step == "allow":
            assert 0 <= breaker.allow(now) <= 10
        else:
            breaker.record(ok=step == "ok", now=now)
    assert breaker.allow(now + 10) == 0
