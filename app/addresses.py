"""Addresses of databases and services as they may be shown: without what opens them."""

from __future__ import annotations

from typing import Final

MASK: Final = "********"
"""What stands for a secret wherever one would be shown."""

_SECRET_PARAMETERS: Final = frozenset({"password", "passfile", "sslpassword", "sslkey"})


def without_secrets(text: str) -> str:
    """Return an address with its user, password and secret parameters masked; other text as is."""
    scheme, mark, rest = text.partition("://")
    if not mark:
        return text
    user, at, rest = rest.rpartition("@")  # first: a password may hold anything
    place, question, query = rest.partition("?")
    parameters = [_parameter(given) for given in query.split("&")]
    return f"{scheme}://{MASK if user else ''}{at}{place}{question}{'&'.join(parameters)}"


def _parameter(given: str) -> str:
    name, _, value = given.partition("=")
    return f"{name}={MASK}" if value and name.lower() in _SECRET_PARAMETERS else given
