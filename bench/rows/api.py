"""The read API of `hilo serve`: a page of events over HTTP."""

from __future__ import annotations

import time
from typing import Final

import httpx2

from bench.measuring import Row, limit, percentile
from bench.plan import Plan
from bench.servers import hilo_serve, wait_until_caught_up

PAGES: Final = 2_000
FILTER: Final = "type=MessageReceived&type=TokensIncremented&limit=100"


def events(plan: Plan) -> list[Row]:
    """Page after page of 100 events of two types, from the start of the log; nobody else asks."""
    data = plan.sets.copy(plan.sets.long)
    with hilo_serve(data, {}) as url, httpx2.Client(base_url=url, timeout=60) as client:
        wait_until_caught_up(data)
        pages = Pages(client)
        spent = [pages.turn() for _ in range(plan.work(PAGES, least=50))]
    median = percentile(spent, 0.5) * 1000
    return [
        limit(
            "event-page",
            "a page of 100 events of two types over HTTP, texts opened, p99",
            percentile(spent, 0.99) * 1000,
            target=20.0,
            unit="ms",
            data_set=data.name,
            notes=f"p50 {median:.1f} ms; {len(spent):,} pages",
        ),
    ]


class Pages:
    """Page after page of 100 events of two types, from the start of the log, round and round."""

    def __init__(self, client: httpx2.Client) -> None:
        """Ask with `client`."""
        self._client = client
        self._query = FILTER

    def turn(self) -> float:
        """Get the next page; return the seconds that it took."""
        start = time.perf_counter()
        answer = self._client.get(f"/v1/events?{self._query}")
        spent = time.perf_counter() - start
        answer.raise_for_status()
        following = answer.json()["next"]
        self._query = FILTER if following is None else f"{FILTER}&cursor={following}"
        return spent
