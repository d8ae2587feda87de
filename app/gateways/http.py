"""What every gateway over HTTP shares: the client, its pool and time-outs, Retry-After, codes."""

from __future__ import annotations

import functools
import ipaddress
import logging
import math
import re
import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

# At INFO and DEBUG the HTTP libraries log URLs and headers, and ours hold phone numbers, ids and
# tokens. Their own level is set, so that a root logger at DEBUG does not bring those lines back.
for _name in ("httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.WARNING)

IDLE_SECONDS = 4.0
"""How long an idle connection is kept. The commonest limit of servers is 5 s, and a request that
meets a closing connection has an unknown outcome: we leave first."""

NOT_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)
"""Errors that come before the first byte of a request has left."""


class TooLate(Exception):
    """The request was not sent: when its first byte was to leave it was too late for it."""


_CODE = re.compile(r"[a-z][a-z_]{0,47}")


class Client(httpx2.AsyncClient):
    """A client whose failures are all `httpx2.HTTPError`.

    Below it a socket is asked for its address right after it was connected. One that the other
    side has closed by then is gone already, and that is an `AttributeError`.
    """

    async def send(
        self,
        request: httpx2.Request,
        **options: Any,  # noqa: ANN401 - handed on
    ) -> httpx2.Response:
        """Send a request. Raises `httpx2.ReadError` where that ends in no error of HTTP.

        So its outcome is unknown: what cannot be told apart is not sent twice.
        """
        try:
            return await super().send(request, **options)
        except AttributeError as error:
            msg = f"the connection broke: {error}"
            raise httpx2.ReadError(msg, request=request) from error


def http_client(
    base_url: str, *, total: float, connections: int, token: str | None = None
) -> httpx2.AsyncClient:
    """Return a client with a keep-alive pool of `connections`, for requests of `total` seconds.

    The caller enforces `total` (`asyncio.timeout`): httpx2's own limits are per read. Waiting for
    the pool, connecting and the TLS handshake get a quarter of it each, so that a request that
    reaches `total` has surely been opened. Redirects are errors, and a loopback address is never
    asked through the environment's proxy.
    """
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return Client(
        base_url=base_url,
        headers=headers,
        timeout=httpx2.Timeout(total, connect=total / 4, pool=total / 4),
        limits=httpx2.Limits(
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=IDLE_SECONDS,
        ),
        verify=_tls(encrypted=base_url.startswith("https:")),
        follow_redirects=False,
        trust_env=not is_loopback(base_url),
    )


def asked_last(still: Callable[[], bool]) -> dict[str, object]:
    """Return a request's extensions by which `still()` is asked right before its first byte leaves.

    Then the connection is there, and nothing is waited for between the question and the write.
    The request raises `TooLate` if the answer is no.
    """

    async def trace(step: str, _: object) -> None:
        if step.endswith(".send_request_headers.started") and not still():
            raise TooLate

    return {"trace": trace}


@functools.cache
def _tls(*, encrypted: bool) -> ssl.SSLContext:
    """Return the context that all clients share; reading the trusted roots takes 50 ms each time.

    A client of a plain `http:` address needs no roots: it gets a context that trusts nobody.
    """
    return httpx2.create_ssl_context() if encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def is_loopback(base_url: str) -> bool:
    """Whether a URL leads to this very machine."""
    host = httpx2.URL(base_url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def retry_after(headers: httpx2.Headers, *, now: float | None = None) -> float | None:
    """Return the seconds that a server asks us to wait, or None if it does not say.

    Reads `retry-after-ms` (OpenAI's), then `Retry-After` as seconds or as a date (RFC 9110
    §10.2.3). A date is compared with the answer's own `Date` if it has one, since the two clocks
    may differ, else with `now` (seconds since 1970; the system's clock by default).
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    given = headers.get("retry-after")
    seconds = _number(given)
    if seconds is not None:
        return seconds
    until = _date(given)
    if until is None:
        return None
    since = _date(headers.get("date"))
    if since is None:
        since = time.time() if now is None else now
    return max(0.0, until - since)


def safe_code(code: object, otherwise: str) -> str:
    """Return a server's error code if it is a plain word, else `otherwise`.

    A code ends up in events and logs: one with digits could be a number or an id of somebody.
    """
    return code if isinstance(code, str) and _CODE.fullmatch(code) else otherwise


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return max(0.0, value) if math.isfinite(value) else None


def _date(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text or "").timestamp()
    except ValueError:
        return None
