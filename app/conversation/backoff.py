"""How long to wait before the next attempt. Pure: randomness comes in as an argument."""

from __future__ import annotations

FIRST_SECONDS = 2.0
MAX_SECONDS = 10.0
MAX_RETRY_AFTER_SECONDS = 120.0
"""Longer demands are cut: by then the provider can be asked again."""


def delay(attempt: int, *, retry_after: float | None, jitter: float) -> float:
    """Return the seconds to wait after failed attempt number `attempt` (1, 2, …).

    Without a demand of the provider: a random share of 1–2, 2–4, 4–8, then 5–10 s. With one: at
    least that, up to 120 s, and up to a second more, so that those who were told the same do not
    all come back at once. `jitter` is a random number of [0, 1).
    """
    if retry_after is not None:
        return min(max(retry_after, 1.0) + jitter, MAX_RETRY_AFTER_SECONDS)
    # The exponent is bounded, since attempts are not: 2.0 ** 1024 raises.
    ceiling = min(FIRST_SECONDS * 2.0 ** min(attempt - 1, 8), MAX_SECONDS)
    return ceiling / 2 * (1 + jitter)
