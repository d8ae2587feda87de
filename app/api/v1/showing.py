"""Structs as JSON answers: instants as ISO 8601 text, and the same said in the OpenAPI schema."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import msgspec

from app.times import iso

INSTANTS: Final = frozenset(
    {
        "at",
        "execution_time",
        "expires_at",
        "last_activity",
        "lastActivity",
        "named_since",
        "registered_at",
        "sender_at",
        "started_at",
        "updated_at",
        "used_at",
    }
)
"""Fields that hold µs since 1970."""


def shown(value: object) -> Any:  # noqa: ANN401 - JSON
    """Return a value as what JSON has, instants as text."""
    match value:
        case msgspec.Struct():
            return {
                name: _instant(getattr(value, field))
                if name in INSTANTS
                else shown(getattr(value, field))
                for name, field in zip(
                    value.__struct_encode_fields__, value.__struct_fields__, strict=True
                )
            }
        case list() | tuple():
            return [shown(one) for one in value]
        case dict():
            return {name: shown(one) for name, one in value.items()}
        case Decimal():
            return str(value)
        case _:
            return value


def _instant(value: object) -> object:
    return iso(value) if isinstance(value, int) else value


def answers(kind: type[Any], description: str, example: object) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of a route that answers with a struct: schema and an example."""
    (schema,), components = msgspec.json.schema_components(
        [kind], ref_template="#/components/schemas/{name}"
    )
    SCHEMAS.update({name: _with_instants(one) for name, one in components.items()})
    content = {"application/json": {"schema": schema, "example": example}}
    return {200: {"description": description, "content": content}, **PROBLEMS}


SCHEMAS: Final[dict[str, Any]] = {}
"""Components of the OpenAPI document that `answers` has met."""

_KEPT: Final = frozenset({"default", "description"})
_PROBLEM: Final = {"$ref": "#/components/schemas/Problem"}


def problem(description: str) -> dict[str, Any]:
    """Return what OpenAPI says of an answer that is a problem document."""
    content = {"application/problem+json": {"schema": _PROBLEM}}
    return {"description": description, "content": content}


PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    401: problem("No key, or none that is good."),
    403: problem("The key's role, or its bot, is another."),
    404: problem("There is no such thing, or no such bot."),
    409: problem("The log is not there yet: ask again, or about something earlier."),
    410: problem("The log under the cursor is another one now: start again without it."),
    422: problem("The question cannot be understood; `errors` or `detail` say why."),
    429: problem("The key asks too often; see Retry-After."),
    503: problem("The log, or what is asked about, cannot be read now; see Retry-After."),
}
"""How a read can fail: everywhere the same."""


def _with_instants(schema: dict[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties", {})
    for name in properties.keys() & INSTANTS:
        kinds = {one.get("type") for one in properties[name].get("anyOf", [properties[name]])}
        text = {"type": "string", "format": "date-time"}
        nullable = {"anyOf": [text, {"type": "null"}]} if "null" in kinds else text
        kept = {key: properties[name][key] for key in _KEPT & properties[name].keys()}
        properties[name] = nullable | kept
    return schema
