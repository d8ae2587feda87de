"""What a whole node tells Prometheus, over HTTP."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

from tests.integration.api.conftest import Client
from tests.integration.turns.stage import Stage


async def test_every_number_of_a_node_is_described_once_and_typed(local: Client) -> None:
    answer = await local.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    for line, following in pairwise(lines):
        if line.startswith("# HELP "):
            name = line.split()[2]
            assert following.startswith(f"# TYPE {name} "), "each is typed where it is described"
            assert following.endswith(" counter") == name.endswith("_total")
    families = list(text_string_to_metric_families(answer.text))
    assert Counter(family.name for family in families).most_common(1)[0][1] == 1
    assert [f.name for f in families if f.documentation == "Not described."] == []
    for family in families:
        assert family.samples
        assert len({tuple(one.labels.items()) for one in family.samples}) == len(family.samples)


async def test_what_has_not_happened_yet_is_there_as_nothing(local: Client) -> None:
    """Or the first time would be no rise, and no alert."""
    text = (await local.get("/metrics")).text
    for name in ("hilo_webhooks_log_unavailable_total", "hilo_refused_no_key_total"):
        assert f"\n{name} 0.0\n" in text
    for name in ("hilo_facts_rejected_total", "hilo_claims_lost_total"):
        assert f'\n{name}{{bot="default"}} 0.0\n' in text


async def test_read_models_that_have_taken_no_batch_yet_tell_no_delay(stage: Stage) -> None:
    """They were built from the log; the delay since 1970 is nobody's."""
    assert stage.bot.numbers()["read_models_visible_seconds"] < 3600
