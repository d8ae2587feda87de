"""What the thread map and the token totals make of a user's events."""

from __future__ import annotations

import pytest

from app.aggregates.events import ActivityRecorded
from app.projections.model import Seen
from app.projections.people import Rows
from app.projections.thread_map import THREAD_MAP, ThreadRow
from app.projections.token_totals import TOKEN_TOTALS, TokenRow, band
from eventstore.codec import Event
from tests.unit.projections.histories import (
    received,
    registered,
    reset,
    sent,
    started,
    tokens,
    unknown,
)


def seen(*events: Event) -> list[Seen]:
    return [(n, "user/ana", n * 1000, type(event), event) for n, event in enumerate(events, 1)]


def totals(*events: Event) -> TokenRow:
    rows = Rows(TokenRow)
    TOKEN_TOTALS.fold(rows, seen(*events))
    return rows["user/ana"]


def conversation(*events: Event) -> ThreadRow:
    rows = Rows(ThreadRow)
    THREAD_MAP.fold(rows, seen(*events))
    return rows["user/ana"]


def test_a_reused_conversation_adds_up() -> None:
    row = totals(started("a"), tokens("a", 7415), tokens("a", 7699), tokens("a", 7851))
    assert (row.tokens, row.total, row.left_behind) == (22965, 22965, 0)


def test_a_new_conversation_starts_at_0_and_the_tokens_of_the_old_one_are_left_behind() -> None:
    row = totals(
        started("a"), tokens("a", 600), reset("a", "thread_changed", 600), started("b"),
        tokens("b", 150), tokens("b", 200), tokens("b", 100),
    )  # fmt: skip
    assert (row.thread, row.tokens, row.total, row.left_behind) == ("b", 450, 1050, 600)


def test_tokens_that_nobody_recorded_as_left_behind_are_not_lost() -> None:
    row = totals(started("a"), tokens("a", 600), started("b"), tokens("b", 50))
    assert (row.tokens, row.left_behind) == (50, 600)


def test_tokens_that_come_late_for_a_conversation_that_was_left_count_in_the_total_only() -> None:
    row = totals(started("a"), reset("a", "expired"), started("b"), tokens("a", 70))
    assert (row.tokens, row.total) == (0, 70)


@pytest.mark.parametrize("count", [0, -1])
def test_a_count_of_nothing_is_skipped(count: int) -> None:
    row = totals(started("a"), tokens("a", 5), tokens("a", count))
    assert (row.tokens, row.total) == (5, 5)


def test_tokens_of_somebody_unknown_make_a_row() -> None:
    row = totals(tokens("a", 5))
    assert (row.user, row.thread, row.tokens, row.total) == ("ana", None, 0, 5)


def test_an_emptied_conversation_stays_linked_with_a_count_of_0() -> None:
    events = started("a"), tokens("a", 9), reset("a", "empty", 9), tokens("a", 4)
    assert (totals(*events).thread, totals(*events).tokens) == ("a", 4)
    assert conversation(*events).thread == "a"


def test_a_reset_of_another_conversation_leaves_the_current_one_alone() -> None:
    events = started("b"), tokens("b", 9), reset("a", "gone")
    assert (totals(*events).thread, totals(*events).tokens) == ("b", 9)
    assert (conversation(*events).thread, conversation(*events).reset_reason) == ("b", "gone")


def test_runs_of_unknown_usage_are_counted() -> None:
    assert totals(unknown(), unknown()).unknown_runs == 2


def test_the_thread_map_knows_who_talks_where_since_when_and_how_much() -> None:
    row = conversation(
        registered(), received(), started("a"), sent(), sent(), reset("a", "expired"), started("b")
    )
    assert row == ThreadRow("ana", "b", 7000, "expired", 1000, 5000, 1, 2)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (0, "normal"),
        (499_999, "normal"),
        (500_000, "caution"),
        (799_999, "caution"),
        (800_000, "warning"),
        (999_999, "warning"),
        (1_000_000, "critical"),
        (2_000_000, "critical"),
    ],
)
def test_a_count_falls_into_its_band_at_the_very_boundary(tokens: int, expected: str) -> None:
    assert band(tokens) == expected


def test_a_limit_that_percentages_do_not_divide_has_exact_bands() -> None:
    assert [band(n, 3) for n in (1, 2, 3)] == ["normal", "caution", "critical"]


def test_an_imported_activity_is_the_last_one_while_nothing_newer_was_seen() -> None:
    def active(when: int, at: int | None) -> ActivityRecorded:
        return ActivityRecorded(last_activity=when, tokens=0, at=at)

    assert conversation(registered(), active(900, at=900)).last_activity == 900
    assert conversation(received(), active(900, at=900)).last_activity == 1000
    assert conversation(active(900, at=900), received()).last_activity == 2000
    assert conversation(received(), active(1700, at=None)).last_activity == 1000
