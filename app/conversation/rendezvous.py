"""Who comes first: the same order of nodes for a name on every node, without asking anybody.

Highest random weight (rendezvous) hashing: each member gets a weight for the name, and the order is
that of the weights. When a member comes or goes only the names that it was first for move.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

_WEIGHT_BYTES = 8


def weight(member: str, name: str) -> int:
    """Return a number that looks random and is the same everywhere."""
    digest = blake2b(f"{member}\0{name}".encode(), digest_size=_WEIGHT_BYTES).digest()
    return int.from_bytes(digest)


def rank(name: str, me: str, others: Iterable[str]) -> int:
    """Return how many of `others` come before `me` for a name: 0 if it is mine."""
    mine = (weight(me, name), me)
    return sum((weight(other, name), other) > mine for other in others)
