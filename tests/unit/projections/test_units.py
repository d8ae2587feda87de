"""Every figure that is shown says what it is counted in."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
import pytest

from app.projections import Bands, ModelStatus, Threads, analytics
from app.projections.cleanups import Cleanups

SHOWN: Final = (
    analytics.UsageReport,
    analytics.LatencyReport,
    analytics.ThreadChangeReport,
    analytics.MediaReport,
    analytics.HealthReport,
    Bands,
    Cleanups,
    ModelStatus,
    Threads,
)
NAMED_AFTER_WHAT_THEY_ARE: Final = frozenset(
    (
        "answerable", "built", "cleaned_count", "contacts", "events", "head", "messages",
        "messages_in", "messages_out", "near_limit", "position", "resets", "runs", "started",
        "threads", "turns", "unknown_runs", "unpriced_runs", "version", "with_tokens",
    )
)  # fmt: skip
"""Positions, versions, and counts of what the name says."""
INSTANTS: Final = frozenset(
    ["at", "execution_time", "last_activity", "registered_at", "started_at", "updated_at"]
)
"""ISO 8601 wherever they are shown."""
UNIT: Final = re.compile(r"(µs|seconds|tokens|events|USD)\b")


def figures(kind: type[Any]) -> dict[str, str]:
    """What the schema says of each number of a struct, and of the structs in it."""
    _, components = msgspec.json.schema_components([kind])
    return {
        f"{component}.{name}": field.get("description", "")
        for component, schema in components.items()
        for name, field in schema.get("properties", {}).items()
        if is_number(field)
    }


def is_number(field: dict[str, Any]) -> bool:
    kinds = [field, *field.get("anyOf", [])]
    return any(one.get("type") in {"integer", "number"} for one in kinds) or (
        field.get("format") == "decimal"
    )


@pytest.mark.parametrize("kind", SHOWN)
def test_the_schema_names_the_unit_of_every_figure(kind: type[Any]) -> None:
    found = figures(kind)
    assert found
    without = {
        name
        for name, description in found.items()
        if name.partition(".")[2] not in NAMED_AFTER_WHAT_THEY_ARE | INSTANTS
        and not UNIT.match(description)
    }
    assert not without
