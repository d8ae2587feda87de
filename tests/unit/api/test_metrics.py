"""What `/metrics` tells Prometheus: the page is of its format, and each number says what it is."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.api.metrics import MEANINGS, Metrics, Numbers, meaning
from app.api.patience import Limits, Patience

RAISED = (
    "Items that could not be read, kept as they came (WebhookItemRejected), since the process "
    "started."
)


def page(node: dict[str, float] | None = None, **bots: dict[str, float]) -> str:
    """What is shown of some numbers."""
    return Metrics(lambda: Numbers(node or {}, bots)).text().decode()


def test_a_counter_says_that_it_is_one_and_what_it_counts() -> None:
    lines = page(sales={"facts_rejected": 3}, support={"facts_rejected": 0}).splitlines()
    assert lines == [
        f"# HELP hilo_facts_rejected_total {RAISED}",
        "# TYPE hilo_facts_rejected_total counter",
        'hilo_facts_rejected_total{bot="sales"} 3.0',
        'hilo_facts_rejected_total{bot="support"} 0.0',
    ]


def test_a_gauge_keeps_its_name() -> None:
    lines = page({"connections_open": 2}).splitlines()
    assert lines[1:] == ["# TYPE hilo_connections_open gauge", "hilo_connections_open 2.0"]


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("cache_key_rates_hits", "counter", "Look-ups in the map key_rates that found their item"),
        ("cache_keys_ttl_seconds", "gauge", "Seconds after which unused items leave the map keys"),
        ("read_model_lag_events_usage", "gauge", "Events of the log that the read model usage"),
    ],
)
def test_numbers_of_each_map_and_read_model_name_it(name: str, kind: str, text: str) -> None:
    found = meaning(name)
    assert found is not None
    assert found.type == kind
    assert found.help.startswith(text)


def test_what_nobody_described_is_shown_all_the_same() -> None:
    """A number is worth more than its description; a test of a whole node misses that."""
    assert meaning("sunspots") is None
    assert page({"sunspots": 7}).splitlines()[-1] == "hilo_sunspots 7.0"


def test_whatever_is_described_is_of_the_format() -> None:
    names = list(MEANINGS)
    families = list(text_string_to_metric_families(page(sales=dict.fromkeys(names, 1.0))))
    assert len(families) == len(names)
    for family in families:
        assert family.documentation.endswith(".")
        assert family.type in {"counter", "gauge"}


def test_what_becomes_of_connections_is_described() -> None:
    limits = Limits(head=10, body=30, log=3, answer=300, connections=10)
    for name in Patience(limits).numbers():
        assert meaning(name) is not None, name
