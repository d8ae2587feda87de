"""`hilo log export --format`, `hilo projections export`, and reads as of a moment."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import pytest

from app.aggregates import events as e
from tests.integration.cli.conftest import Hilo
from tests.integration.cli.house import ANA, House


def test_the_log_as_csv_holds_what_the_jsonl_holds(hilo: Hilo, house: House) -> None:
    whole = [json.loads(line) for line in hilo("log", "export").out.splitlines()]
    rows = list(csv.DictReader(io.StringIO(hilo("log", "export", "--format", "csv").out)))
    assert [json.loads(row["state"]) for row in rows] == [event["state"] for event in whole]
    assert [int(row["position"]) for row in rows] == [event["position"] for event in whole]


def test_a_read_model_is_exported_now_and_as_of_then(
    hilo: Hilo, house: House, tmp_path: Path
) -> None:
    missing = hilo("projections", "export", "thread_map")
    assert missing.code != 0
    assert hilo("projections", "rebuild").code == 0
    file = tmp_path / "threads.csv"
    done = hilo("projections", "export", "thread_map", "--format", "csv", "-o", str(file))
    assert done.code == 0, done.err
    with file.open(newline="") as rows:
        assert {row["user"] for row in csv.DictReader(rows)} == set(house.people.values())

    def exported(*words: str) -> str:
        assert hilo("projections", "export", *words, "-o", str(file), "--force").code == 0
        return file.read_text("utf-8")

    assert len(exported("thread_map", "--as-of", "1").splitlines()) == 1
    masked, opened = exported("client_view"), exported("client_view", "--open")
    assert (ANA in masked, ANA in opened) == (False, True)


@pytest.fixture
def cleaned(hilo: Hilo, house: House) -> House:
    """Ana's conversation was cleaned."""
    house.append(ANA, e.ThreadReset(thread="conv_5678", reason="cleanup", left_behind=1_234))
    assert hilo("projections", "rebuild").code == 0
    return house


def test_a_read_model_with_several_tables_gives_the_first_and_says_so(
    hilo: Hilo, cleaned: House, tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    words = ("--format", "csv", "--force", "-o", file)
    ran = hilo("projections", "export", "cleanup_log", *words)
    assert file.read_text().splitlines()[0] == "id,began_at,recorded_at,token_limit,by"
    assert "the rows of cleanups; --table gives cleaned_threads or ThreadCleanupLog" in ran.err
    for only in (("thread_map",), ("cleanup_log", "--table", "cleanups")):
        ran = hilo("projections", "export", *only, *words)
        assert (ran.code, "--table" in ran.err) == (0, False)
    ran = hilo("projections", "export", "turn_latency", "--json", *words)
    assert ran.json == {"file": str(file), "name": "turn_latency", "table": "turns"}


def test_every_table_of_every_read_model_can_be_exported(
    hilo: Hilo, cleaned: House, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"

    def rows(model: str, table: str, *words: object) -> list[dict[str, Any]]:
        ran = hilo("projections", "export", model, "--table", table, "--force", "-o", file, *words)
        assert ran.code == 0, ran.err
        return [json.loads(line) for line in file.read_text("utf-8").splitlines()]

    models = hilo("projections", "list", "--json").json
    found = {table: rows(one["name"], table) for one in models for table in one["tables"]}
    (row,) = found["cleaned_threads"]
    assert (row["user"], row["tokens"]) == (cleaned.people[ANA], 1_234)
    (run,) = found["ThreadCleanupLog"]
    assert (run["cleaned_count"], run["total_tokens_cleared"]) == (1, 1_234)
    assert found["ClientView"] == found["client_view"]
    assert "•••" in json.dumps(found["ClientView"], ensure_ascii=False)
    assert set(found) >= {"turns", "open_turns", "cleanups", "usage_hours"}
    assert rows("cleanup_log", "cleaned_threads", "--as-of", 1) == []


def test_a_table_that_is_not_there_is_refused_with_those_that_are(
    hilo: Hilo, cleaned: House, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    ran = hilo("projections", "export", "usage", "--table", "turns", "-o", file)
    assert (ran.code, file.exists()) == (2, False)
    assert "usage has no such table: it has usage_hours" in ran.err


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="an optional extra")
def test_parquet_knows_what_an_sql_view_computes(
    hilo: Hilo, cleaned: House, tmp_path: Path
) -> None:
    from pyarrow import parquet  # noqa: PLC0415

    file = tmp_path / "log.parquet"
    words = ("cleanup_log", "--table", "ThreadCleanupLog", "--format", "parquet", "-o", file)
    assert hilo("projections", "export", *words).code == 0
    rows = parquet.read_table(file)
    assert rows["total_tokens_cleared"].to_pylist() == [1_234]
    assert str(rows.schema.field("total_tokens_cleared").type) == "int64"


def test_threads_and_the_log_as_of_a_moment(hilo: Hilo, house: House) -> None:
    before = json.loads(hilo("threads", "list", "--as-of", "1", "--json").out)
    assert (before["position"], len(before["threads"])) == (1, 1)
    now = json.loads(hilo("threads", "check", "--as-of", "now", "--json").out)
    assert now["with_tokens"] == 1
    assert len(hilo("log", "tail", "--as-of", "2").out.splitlines()) == 2
    assert len(hilo("log", "show", ANA, "--as-of", "1").out.splitlines()) == 1
    assert hilo("log", "tail", "--follow", "--as-of", "2").code == 2
