"""Parts of the log on PostgreSQL that need no server: its idea of the time, its binary arrays."""

from __future__ import annotations

import pytest

from eventstore import postgres_connections
from eventstore.postgres_arrays import bigints, byteas, texts
from eventstore.postgres_connections import Estimate

SERVER = 1_800_000_000_000_000


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """This machine's monotonic clock in µs, held by the test."""
    now = [1000]
    monkeypatch.setattr(postgres_connections, "monotonic_micros", lambda: now[0])
    return now


def test_the_server_s_time_is_taken_to_be_told_in_the_middle_of_the_round_trip(
    here: list[int],
) -> None:
    clock = Estimate()
    clock.observe(SERVER, 600, 1000)
    assert clock() == SERVER + 200
    here[0] += 50
    assert clock() == SERVER + 250


def test_an_answer_that_waited_long_does_not_spoil_what_is_known(here: list[int]) -> None:
    clock = Estimate()
    clock.observe(SERVER, 990, 1000)
    here[0] = 900_000
    clock.observe(SERVER + 899_000, 1000, 900_000)  # told at the end, after a lock was given
    assert clock() == SERVER + 899_005


def test_the_estimate_follows_a_clock_that_was_set(here: list[int]) -> None:
    clock = Estimate()
    clock.observe(SERVER, 990, 1000)
    here[0] = 2000
    clock.observe(SERVER + 5_000_000, 1990, 2000)
    assert SERVER + 5_000_000 <= clock() <= SERVER + 5_000_010


def test_the_estimate_never_goes_back(here: list[int]) -> None:
    clock = Estimate()
    clock.observe(SERVER, 990, 1000)
    first = clock()
    clock.observe(SERVER - 3_000_000, 990, 1000)
    assert clock() == first
    here[0] += 3_100_000
    assert clock() > first


def test_arrays_are_in_the_binary_format_of_postgresql() -> None:
    header = bytes.fromhex("00000001 00000001")
    assert bigints([1, -1]) == header + bytes.fromhex(
        "00000014 00000002 00000001 00000008 0000000000000001 00000008 ffffffffffffffff"
    )
    assert byteas([b"a", None, b""]) == header + bytes.fromhex(
        "00000011 00000003 00000001 00000001 61 ffffffff 00000000"
    )
    assert texts(["ñ"]) == header + bytes.fromhex("00000019 00000001 00000001 00000002 c3b1")
    assert byteas([b"x" * 5000])[20:24] == (5000).to_bytes(4, "big")
    assert bigints([]) == bytes.fromhex("00000000 00000000 00000014")
