"""`hilo log export`: everything, once, in order; a file that is whole or not there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from app.aggregates import events as e
from eventstore.types import NewEvent, Position
from tests.integration.cli.conftest import Hilo, environment
from tests.integration.cli.house import ANA, BEN, House


def test_every_event_is_exported_once_and_in_order(hilo: Hilo, house: House) -> None:
    lines = hilo("log", "export").lines
    head = house.log.head()
    assert [line["position"] for line in lines] == list(range(1, head.position + 1))
    for line, event in zip(lines, house.log.read(limit=1000), strict=True):
        assert line["stream"] == event.stream
        assert line["version"] == event.version
        assert line["type"] == event.type
        assert line["epoch"] == head.epoch
        assert line["key"] == (None if event.key is None else event.key.hex())
        assert line["append_id"] == event.append_id.hex()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["recorded_at"])


def test_a_sealed_field_can_be_rebuilt_from_the_export(hilo: Hilo, house: House) -> None:
    received = next(
        line for line in hilo("log", "export").lines if line["type"] == "MessageReceived"
    )
    original = house.log.event_at(Position(received["position"]))
    assert original is not None
    event = house.codec.decode(original.type, original.state)
    assert isinstance(event, e.MessageReceived)
    sealed = received["state"]["content"]["sealed"]
    assert msgspec.json.decode(json.dumps(sealed["box"]), type=bytes) == event.content.box
    assert msgspec.json.decode(json.dumps(sealed["digest"]), type=bytes) == event.content.digest
    assert sealed["generation"] == event.content.generation


def test_opened_exports_hold_the_text_and_say_what_cannot_be_opened(
    hilo: Hilo, house: House
) -> None:
    assert "hola, soy Ana" not in hilo("log", "export").out
    assert "hola, soy Ana" in hilo("log", "export", "--open").out
    house.keyring.destroy(house.people[ANA])
    ran = hilo("log", "export", "--open")
    assert ran.code == 1
    assert "keys.db" in ran.err
    assert {
        line["state"]["content"]["unopened"]
        for line in ran.lines
        if line["stream"] == house.stream(ANA) and line["type"] == "MessageReceived"
    } == {"key missing"}
    assert any("is anybody there?" in line for line in ran.out.splitlines())


def test_a_file_appears_whole_with_a_summary(hilo: Hilo, house: House, tmp_path: Path) -> None:
    ran = hilo("log", "export", "--output", "out.jsonl", "--json")
    head = house.log.head().position
    assert ran.json == {"file": "out.jsonl", "events": head, "after": 0, "up_to": head}
    out = tmp_path / "out.jsonl"
    assert len(out.read_text("utf-8").splitlines()) == head
    assert out.stat().st_mode & 0o077 == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "out.jsonl"]


def test_a_failed_export_leaves_the_file_that_was_there(
    hilo: Hilo, house: House, tmp_path: Path
) -> None:
    (tmp_path / "out.jsonl").write_text("precious", "utf-8")
    house.append_stored(BEN, NewEvent("TypingObserved", b"these bytes are no such event"))
    ran = hilo("log", "export", "--output", "out.jsonl", "--force")
    assert ran.code == 1
    assert "TypingObserved" in ran.err
    assert (tmp_path / "out.jsonl").read_text("utf-8") == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "out.jsonl"]


@pytest.mark.parametrize("command", ["log export", "projections export thread_map"])
def test_a_file_that_is_there_is_replaced_only_if_asked(
    hilo: Hilo, house: House, tmp_path: Path, command: str
) -> None:
    assert hilo("projections", "rebuild").code == 0
    file = tmp_path / "out.jsonl"
    file.write_text("precious", "utf-8")
    (tmp_path / "link.jsonl").symlink_to(file)
    for name in ("out.jsonl", "link.jsonl"):
        ran = hilo(*command.split(), "--output", name)
        assert (ran.code, ran.out) == (2, "")
        assert f"--output {name} is there already" in ran.err
        assert "--force" in ran.err
    assert file.read_text("utf-8") == "precious"
    assert hilo(*command.split(), "--output", "out.jsonl", "--force").code == 0
    assert json.loads(file.read_text("utf-8").splitlines()[0])
    assert hilo(*command.split(), "--output", "/dev/null").code == 0  # a device loses nothing


def test_a_full_device_is_named(hilo: Hilo, house: House) -> None:
    ran = hilo("log", "export", "--output", "/dev/full")
    assert ran.code == 3
    assert "--output /dev/full could not be written whole (No space left on device)" in ran.err


def test_events_of_one_append_are_never_separated(hilo: Hilo, house: House) -> None:
    first = next(r.position for r in house.log.read(limit=1000) if r.type == "RunCompleted")
    for option in ("--after", "--up-to"):
        ran = hilo("log", "export", option, first)
        assert ran.code == 2
        assert f"Give {first - 1} or {first + 1}" in ran.err
    assert hilo("log", "export", "--up-to", first + 1).code == 0


def test_parts_make_the_whole(hilo: Hilo, house: House) -> None:
    whole = hilo("log", "export").out
    parts = hilo("log", "export", "--up-to", 4).out + hilo("log", "export", "--after", 4).out
    assert parts == whole


def test_a_stream_longer_than_a_page_is_exported_whole(hilo: Hilo, house: House) -> None:
    for _ in range(1205):
        house.append(BEN, e.TypingObserved())
    assert len(hilo("log", "export", "--user", BEN).lines) == 1208
    assert len(hilo("log", "export", "--type", "TypingObserved").lines) == 1205


def test_an_event_of_a_newer_release_is_exported_as_it_is(hilo: Hilo, house: House) -> None:
    state = msgspec.msgpack.encode({"r": b"ref", "n": 3})
    house.append_stored(BEN, NewEvent("MessageStarred@7", state))
    (line,) = hilo("log", "export", "--type", "MessageStarred@7").lines
    assert line["unknown_type"] is True
    assert line["state"] == {"r": "cmVm", "n": 3}
    assert hilo("turns", "drop", BEN, "--why", "x").code == 1


def test_a_reader_that_has_seen_enough_ends_the_export_quietly(
    tmp_path: Path, house: House
) -> None:
    for _ in range(3000):
        house.append(BEN, e.TypingObserved())
    with subprocess.Popen(
        [sys.executable, "-m", "app.cli", "log", "export"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as export:
        assert export.stdout is not None
        assert export.stderr is not None
        export.stdout.readline()
        export.stdout.close()
        assert export.wait(timeout=30) == 0
        assert export.stderr.read() == ""
