"""Addresses of databases and services as they may be shown: without what opens them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pydantic import SecretStr

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


def database_of(url: SecretStr) -> tuple[object, ...]:
    """Return which database an address means: host, port and name. Raises ValueError."""
    import psycopg  # noqa: PLC0415 - nobody waits for it whose log is a file
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

    try:
        means = conninfo_to_dict(url.get_secret_value())
    except psycopg.ProgrammingError as error:
        msg = "an address of a database cannot be read"
        raise ValueError(msg) from error
    host = means.get("hostaddr") or means.get("host") or ""
    name = means.get("dbname") or means.get("user") or ""
    return (host, str(means.get("port") or "5432"), name)


def _parameter(given: str) -> str:
    name, _, value = given.partition("=")
    return f"{name}={MASK}" if value and name.lower() in _SECRET_PARAMETERS else given
