"""`hilo nodes`: which processes share a bot's work, and how each of them is (H3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.cli.failures import DONE, FOUND, codes
from app.cli.options import Bot, Data, Json, opened

if TYPE_CHECKING:
    from eventstore.store import Beat
    from eventstore.types import Micros

CODES = codes(found="no node is alive", unreachable="there is no log, or it cannot be read")


def nodes(*, data: Data = None, bot: Bot = None, as_json: Json = False) -> int:
    """List the nodes: which live, what release they are, how far each has followed the log.

    A node that has not beaten for HILO_DEAD_SECONDS is dead, and others do its work. It is
    forgotten after a day; one that was stopped in good order, at once. Lags are in events; turns
    wait until somebody has been quiet for a while, or for a free place.
    """
    from app.cli import output

    with opened(data, bot) as here:
        beats, now, head = here.log.nodes(), here.log.now(), here.log.head().position
        dead_after = round(here.settings.dead_seconds * 1_000_000)
    rows = [_row(beat, now, head, dead_after) for beat in beats]
    alive = sum(row["alive"] is True for row in rows)
    if as_json:
        output.write_json({"position": head, "alive": alive, "nodes": rows})
    elif rows:
        output.write_rows([_readable(row) for row in rows])
    else:
        output.remark("no node is there")
    return DONE if alive else FOUND


def _readable(row: dict[str, object]) -> dict[str, object]:
    """Return what people look for; which start of the node it is, is for programs."""
    from app.cli.output import readable

    return {
        "node": row["node"],
        "release": row["release"],
        "alive": row["alive"],
        "since": readable(str(row["since"])),
        "last beat": readable(str(row["last_beat"])),
        "lag": row["lag"],
        "views lag": row["views_lag"],
        "turns running": row["running"],
        "turns waiting": row["waiting"],
        "clock ahead": f"{row['skew_seconds']} s",
    }


def _row(beat: Beat, now: Micros, head: int, dead_after: int) -> dict[str, object]:
    from app.conversation.nodes import status_of
    from app.times import iso

    status = status_of(beat)
    alive = now - beat.beat_at < dead_after
    return {
        "node": beat.node,
        "incarnation": beat.incarnation,
        "release": beat.release,
        "alive": alive,
        "since": iso(beat.started_at),
        "last_beat": iso(beat.beat_at),
        "lag": max(0, head - status.position),
        "views_lag": max(0, head - status.views),
        "running": status.running if alive else 0,
        "waiting": status.waiting if alive else 0,
        "skew_seconds": f"{status.skew / 1_000_000:.3f}",
    }
