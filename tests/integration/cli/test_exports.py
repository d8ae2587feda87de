"""`hilo log export --format`, `hilo projections export`, and reads as of a moment."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

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
        assert hilo("projections", "export", *words, "-o", str(file)).code == 0
        return file.read_text("utf-8")

    assert len(exported("thread_map", "--as-of", "1").splitlines()) == 1
    masked, opened = exported("client_view"), exported("client_view", "--open")
    assert (ANA in masked, ANA in opened) == (False, True)


def test_threads_and_the_log_as_of_a_moment(hilo: Hilo, house: House) -> None:
    before = json.loads(hilo("threads", "list", "--as-of", "1", "--json").out)
    assert (before["position"], len(before["threads"])) == (1, 1)
    now = json.loads(hilo("threads", "check", "--as-of", "now", "--json").out)
    assert now["with_tokens"] == 1
    assert len(hilo("log", "tail", "--as-of", "2").out.splitlines()) == 2
    assert len(hilo("log", "show", ANA, "--as-of", "1").out.splitlines()) == 1
    assert hilo("log", "tail", "--follow", "--as-of", "2").code == 2
