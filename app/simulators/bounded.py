"""Keeping a simulator's memory bounded."""

from typing import TypeVar

T = TypeVar("T")


def forget_oldest(kept: dict[str, T], most: int) -> None:
    """Drop the first entries of a dictionary until it has at most `most`."""
    while len(kept) > most:
        del kept[next(iter(kept))]
