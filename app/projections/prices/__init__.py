"""What tokens cost: data with dates, in `prices.toml` beside this file, or in a file of your own.

A price holds from a day on, 00:00 UTC, until the next one of the same model. Who pays other
prices, or uses other models, gives a file in the same format.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Final, Self

import msgspec

PICO: Final = Decimal(10) ** -12
"""USD: the unit in which costs are added up, as integers, exactly."""

_DATED: Final = re.compile(r"-\d{4}-\d{2}-\d{2}$")
_OWN: Final = Path(__file__).with_name("prices.toml")


class PricesError(ValueError):
    """A file of prices cannot be used."""


class Price(msgspec.Struct, frozen=True, rename={"since": "from"}):
    """What a model's tokens cost from a day on: USD for a million."""

    model: str
    since: date
    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    """Input that the provider had in its cache; as much as other input if it is not given."""

    def cost(self, *, input: int, output: int, cached: int) -> int:  # noqa: A002 - the ledger's words
        """Return the cost in 10⁻¹² USD; `cached` is the part of `input` that was cached."""
        fresh, warm = _pico(self.input), _pico(self.input if self.cached is None else self.cached)
        return (input - cached) * fresh + cached * warm + output * _pico(self.output)


class _File(msgspec.Struct, forbid_unknown_fields=True):
    price: list[Price]


class Prices:
    """Prices by model and day."""

    def __init__(self, prices: Iterable[Price]) -> None:
        """Raise `PricesError` if a model has two prices from the same day on."""
        self._by_model: dict[str, list[Price]] = {}
        for price in sorted(prices, key=lambda price: price.since):
            known = self._by_model.setdefault(price.model, [])
            if known and known[-1].since == price.since:
                msg = f"two prices of {price.model} from {price.since} on"
                raise PricesError(msg)
            known.append(price)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file. Raises `PricesError` that says what is wrong with it."""
        try:
            table = tomllib.loads(path.read_text("utf-8"))
            return cls(msgspec.convert(table, _File).price)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            msg = f"the prices at {path} cannot be read: {error}"
            raise PricesError(msg) from error
        except msgspec.ValidationError as error:
            msg = f"the prices at {path} are not as they should be: {error}"
            raise PricesError(msg) from error

    def of(self, model: str, day: date) -> Price | None:
        """Return what a model cost on a day (UTC); None if nobody knows.

        `gpt-5-mini-2025-08-07` costs what `gpt-5-mini` does unless it has a price of its own.
        """
        for name in (model, _DATED.sub("", model)):
            known = self._by_model.get(name, [])
            place = bisect_right(known, day, key=lambda price: price.since)
            if place:
                return known[place - 1]
        return None


@cache
def standard() -> Prices:
    """Return the prices of this release."""
    return Prices.read(_OWN)


def day_of(hour: str) -> date:
    """Return the day of `2026-11-21T14:00Z`."""
    return datetime.strptime(hour[:10], "%Y-%m-%d").replace(tzinfo=UTC).date()


def usd(pico: int) -> Decimal:
    """Return a sum of costs in USD, to the last digit."""
    return (pico * PICO).normalize() + Decimal(0)


@cache
def _pico(per_million: Decimal) -> int:
    return int(per_million * 1_000_000)
