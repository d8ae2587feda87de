"""The rows of the table, in the order of the issue: `ROWS` maps a name to what measures it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from bench.measuring import Row
from bench.plan import Plan
from bench.rows import (
    api,
    appending,
    clients,
    memory,
    migrating,
    moments,
    nodes,
    pg_appending,
    pg_reading,
    projecting,
    reading,
    turn,
    webhook,
)

Measure = Callable[[Plan], Sequence[Row]]

ROWS: Final[Mapping[str, Measure]] = {
    "append-64": appending.many_callers,
    "append-1": appending.one_caller,
    "webhook": webhook.against_fastapi,
    "webhook-node": webhook.against_fastify,
    "webhook-p99": webhook.beside_rebuild,
    "rebuild": reading.rebuilding,
    "rebuild-all": projecting.rebuilding_all,
    "live-lag": projecting.live_lag,
    "user-at": moments.one_user,
    "thread-map-at": moments.thread_map,
    "event-page": api.events,
    "serve-memory": memory.serving,
    "cold-load": reading.cold_load,
    "turn": turn.overhead,
    "clients": clients.clients,
    "disk": appending.bytes_on_disk,
    "pg-append-64": pg_appending.many_callers,
    "pg-append-4p": pg_appending.many_processes,
    "pg-rebuild": pg_reading.rebuilding,
    "nodes": nodes.second_node,
    "claims": nodes.lost_claims,
    "takeover": nodes.take_over,
    "migrate": migrating.both_ways,
}

__all__ = ["ROWS", "Measure"]
