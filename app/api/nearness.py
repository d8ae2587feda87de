"""Whether a request comes from this machine itself, as a keyless installation asks.

Coming from loopback is not enough. A proxy on this machine brings strangers, and a browser on it
does what any page says: it sends requests across sites (`Origin`, Fetch Metadata), or to a name
that its owner has let point at 127.0.0.1 (DNS rebinding), which `Host` gives away.
"""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request

_OF_PROXIES: Final = frozenset(
    {
        "cf-connecting-ip",
        "forwarded",
        "true-client-ip",
        "via",
        "x-client-ip",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-original-forwarded-for",
        "x-real-ip",
    }
)
_OF_OURSELVES: Final = frozenset({"same-origin", "none"})


def is_near(request: Request) -> bool:
    """Tell whether nobody but somebody on this machine can have sent a request."""
    headers = request.headers
    if request.client is None or not _is_loopback(request.client.host):
        return False
    if any(name in _OF_PROXIES for name in headers):
        return False
    if not _is_of_here(f"//{headers.get('host', '')}"):
        return False
    if headers.get("sec-fetch-site", "none") not in _OF_OURSELVES:
        return False
    return "origin" not in headers or _is_of_here(headers["origin"])


def _is_of_here(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host == "localhost" or _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
