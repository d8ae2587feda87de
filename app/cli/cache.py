"""`hilo cache`: what the server keeps in memory, and how well that does (A6, A15)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from app.cli.failures import DONE, CannotReach, codes
from app.cli.options import Bot, Data, Json, group, settings_of

if TYPE_CHECKING:
    from pathlib import Path

cache = group("cache", "What the server keeps in memory.")

CODES: Final = codes(unreachable="no server of that directory answers")
_FIGURES: Final = (
    "size", "limit", "ttl_seconds", "hits", "misses", "evictions", "expirations", "access_seconds",
)  # fmt: skip
_LINE: Final = re.compile(
    rf'^hilo_cache_(\w+?)_({"|".join(_FIGURES)})(?:_total)?(?:\{{bot="([^"]+)"\}})? (\S+)$',
    re.ASCII | re.MULTILINE,
)
_NODE: Final = ""
"""Whose the maps are that all bots of a node share."""


@cache.command(epilog=CODES)
def stats(*, data: Data = None, bot: Bot = None, as_json: Json = False) -> int:
    """Show every bounded map of the running server: its size, and what became of its look-ups.

    Expiry and eviction free memory only: whatever a map has forgotten, the log knows.
    """
    from app.cli import output

    settings = settings_of(data, bot)
    maps: dict[str, dict[str, float]] = {}
    found = _LINE.findall(_metrics(settings.data / "serve.json"))
    for name, figure, of, value in found:
        if of in (_NODE, settings.bot):
            maps.setdefault(name, {})[figure] = float(value)
    rows = [_row(name, figures) for name, figures in sorted(maps.items())]
    if as_json:
        output.write_json({"caches": rows})
    elif any(of == settings.bot for _, _, of, _ in found):
        output.write_rows(rows)
    else:
        output.remark(f"the server has no bot {settings.bot!r} open")
    return DONE


def _row(name: str, figures: dict[str, float]) -> dict[str, object]:
    asked = figures["hits"] + figures["misses"]
    seconds = figures["access_seconds"]
    return {
        "map": name,
        "size": int(figures["size"]),
        "limit": int(figures["limit"]),
        "ttl_seconds": int(figures["ttl_seconds"]) or None,
        "hits": int(figures["hits"]),
        "misses": int(figures["misses"]),
        "hit_rate": round(figures["hits"] / asked, 3) if asked else None,
        "evictions": int(figures["evictions"]),
        "expirations": int(figures["expirations"]),
        "access_us": round(seconds * 1e6, 2) if seconds else None,
    }


def _metrics(announcement: Path) -> str:
    """Return what the server of a directory says of itself. Raises `CannotReach`."""
    import httpx2
    import msgspec

    try:
        url = msgspec.json.decode(announcement.read_bytes(), type=dict[str, object])["url"]
        answer = httpx2.get(f"{url}/metrics", timeout=5, trust_env=False)
        answer.raise_for_status()
    except (OSError, KeyError, msgspec.MsgspecError, httpx2.HTTPError):
        msg = f"no server answers that {announcement} names: start hilo serve"
        raise CannotReach(msg) from None
    return answer.text
