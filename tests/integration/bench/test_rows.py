"""Every row of the benchmarks runs, at tiny size, and says what it measured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import exit_code, main
from bench.measuring import Row, compare, limit, percentile
from bench.report import number, target
from bench.rows import ROWS

NEEDS_NODE = {"webhook-node"}
NEEDS_TIME = {"nodes", "takeover"}
"""Servers by the half dozen, or the ten seconds of a lease; `claims` starts the same ones."""

MAY_BE_NOTHING = {"claims"}
NAMED = {
    "name",
    "what",
    "ours",
    "peer",
    "peer_name",
    "ratio",
    "target",
    "better",
    "unit",
    "data_set",
    "goal",
    "rounds",
    "ok",
    "skipped",
    "notes",
}


def test_every_row_is_explained() -> None:
    page = (Path(__file__).parents[3] / "docs" / "performance.md").read_text("utf-8")
    assert not [name for name in ROWS if f"`{name}`" not in page and f"--only {name}`" not in page]


def measured(name: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """One benchmark at tiny size: its exit code and its JSON."""
    code = main(["--only", name, "--events", "200", "--rounds", "1", "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    whole: dict[str, Any] = json.loads(line)
    return code, whole


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ROWS.keys() - NEEDS_NODE - NEEDS_TIME))
def test_a_row_is_measured_and_says_what_it_missed(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, whole = measured(name, capsys)
    assert whole["rows"]
    for row in whole["rows"]:
        assert row.keys() <= NAMED
        assert row["ours"] > 0 or name in MAY_BE_NOTHING
        assert row["data_set"]
        assert row["unit"]
        assert row["ok"] in {True, False}
    assert whole["skipped"] == []
    assert code == (1 if whole["missed"] else 0)


def test_a_peer_that_cannot_run_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    code, whole = measured("webhook-node", capsys)
    assert code == 3
    assert whole["skipped"] == ["webhook-node"]
    assert "Node.js" in whole["rows"][0]["skipped"]


def test_the_ratio_is_the_median_of_the_rounds_not_of_the_sides() -> None:
    rounds = [(10.0, 1.0), (30.0, 10.0), (20.0, 5.0)]
    row = compare(
        "a", "a", rounds, peer_name="b", target=4.0, unit="events/s", data_set="three rounds"
    )
    assert (row.ours, row.peer, row.ratio, row.ok) == (20.0, 5.0, 4.0, True)


@pytest.mark.parametrize(("ratio", "ok"), [(1.9, True), (2.1, False)])
def test_where_less_is_better_the_ratio_stays_under_its_target(ratio: float, ok: bool) -> None:
    row = compare(
        "a",
        "a",
        [(ratio, 1.0)],
        peer_name="b",
        target=2.0,
        better="lower",
        unit="ms",
        data_set="one",
    )
    assert row.ok is ok


def test_a_missed_target_outweighs_a_missing_peer() -> None:
    good = limit("a", "a", 1.0, target=2.0, unit="bytes", data_set="one")
    bad = limit("a", "a", 3.0, target=2.0, unit="bytes", data_set="one")
    skipped = Row(name="b", what="b", skipped="no Node.js")
    assert exit_code([good]) == 0
    assert exit_code([good, skipped]) == 3
    assert exit_code([bad, skipped]) == 1


def test_numbers_are_printed_as_exactly_as_they_deserve() -> None:
    assert number(45_123.4, "events/s") == "45,123 events/s"
    assert number(9.876, "ms") == "9.88 ms"
    assert number(None, "ms") == ""
    assert target(limit("a", "a", 1.0, target=450, unit="bytes", data_set="")) == "≤ 450 bytes"


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile(range(1, 101), 0.99) == 100
    assert percentile([7.0], 0.5) == 7.0


def test_a_console_script_finds_the_postgresql_of_the_tests(tmp_path: Path) -> None:
    script = "from bench.postgres import databases\nwith databases() as it: print(it.database())"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("postgres"), done.stderr
