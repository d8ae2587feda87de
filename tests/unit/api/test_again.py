"""Something is done again for whoever asks, however many they are, and not too often."""

from __future__ import annotations

import asyncio
import time

import pytest

from app.api.again import Again


async def test_everybody_gets_what_was_found_after_they_asked() -> None:
    begun: list[float] = []
    again = Again(lambda: begun.append(time.monotonic()), 0.01)

    async def ask() -> None:
        asked = time.monotonic()
        await again()
        assert begun[-1] >= asked

    for _ in range(3):
        await asyncio.gather(*[ask() for _ in range(50)])
    assert len(begun) == 3


async def test_a_flood_makes_it_work_no_more_often() -> None:
    begun: list[float] = []
    again = Again(lambda: begun.append(time.monotonic()), 0.05)
    ended = time.monotonic() + 0.4

    async def keep_asking() -> None:
        while time.monotonic() < ended:
            await again()

    await asyncio.gather(*[keep_asking() for _ in range(100)])
    assert 5 <= len(begun) <= 10


async def test_what_goes_wrong_is_told_to_all_and_the_next_one_works() -> None:
    wrong = [ValueError("no disk")]

    def work() -> None:
        if wrong:
            raise wrong.pop()

    again = Again(work, 0.0)
    ends = await asyncio.gather(again(), again(), return_exceptions=True)
    assert [type(end) for end in ends] == [ValueError, ValueError]
    await again()


async def test_somebody_who_goes_away_spoils_nothing_for_the_others() -> None:
    done: list[None] = []
    again = Again(lambda: done.append(None), 0.0)
    impatient, patient = asyncio.ensure_future(again()), asyncio.ensure_future(again())
    await asyncio.sleep(0)
    impatient.cancel()
    await patient
    assert done == [None]
    with pytest.raises(asyncio.CancelledError):
        await impatient
