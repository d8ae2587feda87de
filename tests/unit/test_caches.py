"""Maps in memory: bounded, expiring, and honest about both."""

from __future__ import annotations

import pytest

from app.caches import Expiring, Figures, Registry


class Clock:
    """Seconds, as told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_was_unused_for_longest_makes_room_and_is_counted() -> None:
    kept: Expiring[str, int] = Expiring(limit=2, ttl=60)
    kept.put("a", 1)
    kept.put("b", 2)
    assert kept.get("a") == 1
    kept.put("c", 3)
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (1, None, 3)
    figures = kept.figures()
    assert (figures.size, figures.limit) == (2, 2)
    assert (figures.hits, figures.misses, figures.evictions) == (3, 1, 1)
    assert figures.access_seconds > 0


def test_an_item_goes_when_its_time_is_over_however_often_it_was_used_or_replaced() -> None:
    clock = Clock()
    kept: Expiring[str, int] = Expiring(limit=9, ttl=60, clock=clock)
    kept.put("a", 1)
    clock.now = 59.0
    kept.replace("a", 2)
    assert kept.get("a") == kept.peek("a") == 2
    clock.now = 60.0
    assert kept.peek("a") is None
    kept.put("a", 3)
    assert kept.get("a") == 3
    kept.discard("a")
    kept.discard("a")
    assert (len(kept), kept.figures().expirations) == (0, 1)


def test_a_look_that_is_not_a_use_neither_counts_nor_keeps() -> None:
    kept: Expiring[str, int] = Expiring(limit=2, ttl=60)
    kept.put("a", 1)
    kept.put("b", 2)
    assert kept.peek("a") == 1
    kept.put("c", 3)
    assert kept.peek("a") is None
    assert kept.figures().hits == 0


def test_each_map_has_a_name_of_its_own_under_which_its_figures_are_shown() -> None:
    maps = Registry()
    maps.add("people", lambda: Figures(size=3, limit=5, hits=7))
    with pytest.raises(ValueError, match="people"):
        maps.add("people", lambda: Figures(size=0))
    numbers = dict(maps.numbers())
    assert numbers["cache_people_size"] == 3
    assert numbers["cache_people_hits"] == 7
    assert maps.figures()["people"].limit == 5
