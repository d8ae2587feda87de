"""The read API of `hilo serve`: a page of events over HTTP, and the memory that all of it takes."""

from __future__ import annotations

import time
from typing import Final

import httpx2
import msgspec
import psutil

from bench.measuring import Row, limit, percentile
from bench.plan import Plan
from bench.servers import hilo_serve, wait_until_caught_up

PAGES: Final = 2_000
FILTER: Final = "type=MessageReceived&type=TokensIncremented&limit=100"


def pages(plan: Plan) -> list[Row]:
    """Page after page of 100 events of two types, from the start of the log; nobody else asks."""
    data = plan.sets.copy(plan.sets.long)
    spent: list[float] = []
    with hilo_serve(data, {}) as url, httpx2.Client(base_url=url, timeout=60) as client:
        wait_until_caught_up(data)
        pid = msgspec.json.decode((data.data / "serve.json").read_bytes())["pid"]
        before = psutil.Process(pid).memory_info().rss
        query = FILTER
        for _ in range(plan.work(PAGES, least=50)):
            start = time.perf_counter()
            answer = client.get(f"/v1/events?{query}")
            spent.append(time.perf_counter() - start)
            answer.raise_for_status()
            following = answer.json()["next"]
            query = FILTER if following is None else f"{FILTER}&cursor={following}"
        after = psutil.Process(pid).memory_info().rss
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
        limit(
            "serve-memory",
            "resident memory of hilo serve after those pages",
            after / 1e6,
            target=250.0,
            unit="MB",
            data_set=data.name,
            notes=f"{before / 1e6:.0f} MB before them",
        ),
    ]
