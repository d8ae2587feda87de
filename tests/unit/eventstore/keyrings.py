"""People of whom a keyring is told, and the time that it is told."""

from __future__ import annotations

from datetime import datetime

from eventstore.keyring import Handle
from eventstore.types import Micros

PHONE = Handle("phone", "34612345678")
LID = Handle("lid", "98765432101234@lid")
OTHER = Handle("phone", "34699999999")

NOVEMBER = Micros(1_795_000_000_000_000)  # 2026-11-18
ONE_QUARTER = 92 * 86_400_000_000


class FakeClock:
    def __init__(self) -> None:
        self.now = NOVEMBER

    def __call__(self) -> Micros:
        return self.now


def micros(date: str) -> Micros:
    return Micros(int(datetime.fromisoformat(date + "Z").timestamp()) * 1_000_000)
