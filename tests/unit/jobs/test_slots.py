"""Slots are the same on every node, and one a day whatever clocks do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.jobs.slots import Daily, Every, Times, latest_slot, next_slot
from eventstore.types import Micros

MADRID = ZoneInfo("Europe/Madrid")


def micros(moment: datetime) -> Micros:
    return Micros(round(moment.timestamp() * 1_000_000))


def local(slot: Micros) -> str:
    return datetime.fromtimestamp(slot / 1_000_000, MADRID).strftime("%m-%d %H:%M %Z")


def slots(times: Times, begin: datetime, count: int) -> list[str]:
    found, at = [], micros(begin)
    for _ in range(count):
        at = next_slot(times, at)
        found.append(local(at))
    return found


def test_a_daily_job_keeps_its_local_time_when_clocks_change() -> None:
    assert slots(Daily(3, 0, "Europe/Madrid"), datetime(2026, 3, 28, 12, tzinfo=UTC), 2) == [
        "03-29 03:00 CEST",
        "03-30 03:00 CEST",
    ]
    assert slots(Daily(3, 0, "Europe/Madrid"), datetime(2026, 10, 24, 12, tzinfo=UTC), 2) == [
        "10-25 03:00 CET",
        "10-26 03:00 CET",
    ]


def test_a_time_that_does_not_exist_is_an_hour_later_and_one_that_comes_twice_counts_once() -> None:
    half_past_two = Daily(2, 30, "Europe/Madrid")
    assert slots(half_past_two, datetime(2026, 3, 28, 12, tzinfo=UTC), 2) == [
        "03-29 03:30 CEST",
        "03-30 02:30 CEST",
    ]
    assert slots(half_past_two, datetime(2026, 10, 24, 12, tzinfo=UTC), 2) == [
        "10-25 02:30 CEST",
        "10-26 02:30 CET",
    ]


def test_there_is_a_slot_a_day_all_year_long() -> None:
    for zone in ("Europe/Madrid", "America/Bogota", "Australia/Lord_Howe"):
        times = Daily(2, 15, zone)
        at, days = micros(datetime(2025, 12, 31, 23, 59, tzinfo=ZoneInfo(zone))), []
        for _ in range(365):
            at = next_slot(times, at)
            days.append(datetime.fromtimestamp(at / 1_000_000, ZoneInfo(zone)).date())
        assert len(set(days)) == 365


@pytest.mark.parametrize("times", [Daily(3, 0, "Europe/Madrid"), Every(60), Every(7200)])
def test_the_latest_slot_is_the_one_before_the_next(times: Times) -> None:
    begin = datetime(2026, 10, 23, 5, 17, 3, tzinfo=UTC)
    for hours in range(0, 96, 7):
        now = micros(begin + timedelta(hours=hours))
        latest = latest_slot(times, now)
        assert latest is not None
        assert latest <= now < next_slot(times, latest)
        assert latest_slot(times, latest) == latest, "at its very instant it is due"


def test_an_interval_has_the_same_instants_everywhere() -> None:
    at = micros(datetime(2026, 5, 5, 5, 5, 5, tzinfo=UTC))
    assert next_slot(Every(3600), at) == micros(datetime(2026, 5, 5, 6, tzinfo=UTC))
