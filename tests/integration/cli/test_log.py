"""`hilo log`: what was recorded is shown as it was recorded, and looking changes nothing."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.aggregates import events as e
from tests.integration.cli.conftest import Hilo, environment
from tests.integration.cli.house import ANA, ANA_LID, BEN, EVA, House


def contents(directory: Path) -> dict[str, bytes]:
    """Every file; of an installation that is closed, or reading it would drop SQLite's locks."""
    return {str(p): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def test_tail_shows_the_newest_events_in_order(hilo: Hilo, house: House) -> None:
    lines = hilo("log", "tail", "--limit", 3, "--json").lines
    head = house.log.head().position
    assert [line["position"] for line in lines] == [head - 2, head - 1, head]


def test_tail_is_one_line_an_event_and_seals_what_is_personal(hilo: Hilo, house: House) -> None:
    ran = hilo("log", "tail", "--limit", 1000)
    assert len(ran.out.splitlines()) == house.log.head().position
    assert "«sealed»" in ran.out
    assert "hola" not in ran.out
    assert ran.err == ""


def test_tail_says_what_happened_in_the_words_of_a_reader(hilo: Hilo, house: House) -> None:
    shown = hilo("log", "tail", "--user", ANA).out
    assert "MessageReceived       the person sent a text: «sealed»" in shown
    assert "it cost 1234 tokens" in shown
    assert "WhatsApp took part 1 of the answer" in shown
    assert not re.search(r"cor=|cau=|run-|resp_|\.\d{4}", shown)
    person = house.people[ANA]
    for line in shown.splitlines():
        assert re.match(r" *\d+  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z  ", line)
        assert f"  {person[:8]}  " in line
        assert person not in line
    assert "the person sent a text: “hola, soy Ana”" in hilo("log", "tail", "--open").out


def test_raw_lines_hold_every_field_and_whole_ids(hilo: Hilo, house: House) -> None:
    shown = hilo("log", "tail", "--raw", "--type", "RunCompleted").out
    assert house.people[ANA] in shown
    assert f"run=run-{ANA}-2" in shown
    assert f"cor=run-{ANA}-2" in shown
    assert re.search(r"T\d\d:\d\d:\d\d\.\d{6}Z", shown)
    assert hilo("log", "show", ANA, "--raw").out.splitlines()[0].endswith("chat=«sealed»")


def test_on_a_terminal_the_columns_are_explained_and_in_a_pipe_there_are_only_events(
    tmp_path: Path, house: House
) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "app.cli", "log", "tail", "--limit", "1"]
    with os.fdopen(ours, "rb") as terminal:
        done = subprocess.run(
            command,
            env=environment(tmp_path),
            stdout=theirs,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
            timeout=60,
        )
        os.close(theirs)
        assert b"guten Tag" not in terminal.readline()
    assert "what happened" in done.stderr
    assert "--open" in done.stderr


def test_a_person_may_be_named_by_the_first_letters_of_their_pseudonym(
    hilo: Hilo, house: House
) -> None:
    person = house.people[ANA]
    lines = hilo("log", "show", person[:8], "--json").lines
    assert {line["stream"] for line in lines} == {house.stream(ANA)}
    assert hilo("log", "show", person[:3]).code == 1


def test_tail_by_user_type_and_position_shows_only_what_is_asked_for(
    hilo: Hilo, house: House
) -> None:
    of_ben = hilo("log", "tail", "--user", BEN, "--json").lines
    assert {line["stream"] for line in of_ben} == {house.stream(BEN)}
    received = hilo("log", "tail", "--type", "MessageReceived", "--json").lines
    assert [line["type"] for line in received] == ["MessageReceived"] * 3
    both = hilo("log", "tail", "--type", "MessageReceived", "--user", ANA, "--json").lines
    assert len(both) == 1
    after = hilo("log", "tail", "--after", 5, "--limit", 2, "--json").lines
    assert [line["position"] for line in after] == [6, 7]


def test_the_newest_events_are_found_however_far_back_they_are(hilo: Hilo, house: House) -> None:
    for _ in range(1100):
        house.append(EVA, e.TypingObserved())
    parked = hilo("log", "tail", "--type", "TurnParked", "--json").lines
    assert [line["type"] for line in parked] == ["TurnParked"]
    typing = hilo("log", "tail", "--user", EVA, "--limit", 1050, "--json").lines
    assert len(typing) == 1050
    assert typing == sorted(typing, key=lambda line: line["position"])


def test_follow_shows_what_another_process_appends(tmp_path: Path, house: House) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "app.cli", "log", "tail", "--follow", "--limit", "1", "--json"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as follower:
        assert follower.stdout is not None
        assert json.loads(follower.stdout.readline())["position"] == house.log.head().position
        appended = house.write(EVA, "noch da?")
        assert json.loads(follower.stdout.readline())["position"] == appended.last_position
        follower.send_signal(signal.SIGINT)
        _, errors = follower.communicate(timeout=20)
    assert follower.returncode == 130
    assert errors == ""


@pytest.mark.parametrize("who", [ANA, f"+{ANA}", "+34 612 345-678", f"{ANA_LID}@lid", ANA_LID])
def test_a_user_is_found_by_phone_and_by_lid(hilo: Hilo, house: House, who: str) -> None:
    lines = hilo("log", "show", who, "--json").lines
    assert {line["stream"] for line in lines} == {house.stream(ANA)}
    assert [line["version"] for line in lines] == list(range(1, len(lines) + 1))


def test_a_user_is_found_by_pseudonym_without_any_key(hilo: Hilo, house: House) -> None:
    (house.data / "kek").unlink()
    for who in (house.people[ANA], house.stream(ANA)):
        assert hilo("log", "show", who).code == 0


def test_show_opens_sealed_fields_only_when_asked(hilo: Hilo, house: House) -> None:
    assert "soy Ana" not in hilo("log", "show", ANA).out
    assert "soy Ana" in hilo("log", "show", ANA, "--open").out
    lines = hilo("log", "show", ANA, "--open", "--json").lines
    received = next(line for line in lines if line["type"] == "MessageReceived")
    assert received["state"]["content"]["text"] == "hola, soy Ana"


def test_text_that_would_take_the_terminal_over_is_shown_harmless(hilo: Hilo, house: House) -> None:
    house.write(ANA, "\x1b[2Jboo\x9b1m\u202e\n")
    shown = hilo("log", "show", ANA, "--open").out
    assert "boo" in shown
    assert not {"\x1b", "\x9b", "\u202e"} & set(shown)


def test_show_for_nobody_and_without_keys_says_what_to_do(hilo: Hilo, house: House) -> None:
    ran = hilo("log", "show", "999999999")
    assert (ran.code, ran.out) == (1, "")
    assert "hilo users list" in ran.err
    (house.data / "kek").unlink()
    ran = hilo("log", "show", ANA)
    assert ran.code == 3
    assert "HILO_KEK" in ran.err
    assert not (house.data / "kek").exists()


def test_stats_count_the_log(hilo: Hilo, house: House) -> None:
    stats = hilo("log", "stats", "--json").json
    head = house.log.head()
    assert (stats["position"], stats["epoch"]) == (head.position, head.epoch)
    assert sum(stats["types"].values()) == head.position
    assert (stats["streams"], stats["users"]) == (3, 3)
    assert stats["bytes_per_event"] == stats["bytes"] // head.position
    assert stats["wal_bytes"] > 0
    assert stats["first_at"] < stats["last_at"]
    assert stats["last_at"].endswith("Z")
    assert "MessageReceived" in hilo("log", "stats").out
    house.close()  # which moves what is in the WAL to its place
    assert stats["bytes"] == house.log.path.stat().st_size


@pytest.mark.parametrize("name", ["default/log.db", "kek", "default/keys.db", "new.jsonl"])
def test_an_export_never_takes_the_place_of_a_log_or_a_key(
    hilo: Hilo, house: House, name: str
) -> None:
    data = house.log.path.parents[1]
    before = {path: path.stat().st_ino for path in data.rglob("*") if path.is_file()}
    for command in (["log", "export"], ["projections", "export", "usage"]):
        ran = hilo(*command, "--output", str(data / name))
        assert (ran.code, ran.out) == (2, "")
        assert "where logs and keys are: name a file elsewhere" in ran.err
    after = {path: path.stat().st_ino for path in data.rglob("*") if path.is_file()}
    assert {path: after.get(path) for path in before} == before
    assert not (data / "new.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["tail", "--type", "MessageRecieved"], 2, "did you mean MessageReceived?"),
        (["tail", "--after", "1000"], 2, "the log ends at"),
        (["tail", "--limit", "-1"], 2, "--limit"),
        (["tail", "--limit", "many"], 2, "--limit"),
        (["tail", "--user", "nobody"], 1, "nobody in this log"),
        (["show"], 2, "USER"),
        (["stats", "extra"], 2, "hilo log stats --help"),
        (["export", "--up-to", "1000"], 2, "the log ends at"),
        (["export", "--up-to", "2", "--after", "4"], 2, "is before"),
        (["export", "--output", "."], 2, "is a directory"),
        (["export", "--output", "no/such/directory/x"], 2, "there is no directory"),
        (["export", "--output", "/proc/x"], 2, "--output /proc/x cannot be written"),
        (["export", "--output", "x" * 300], 2, "cannot be written"),
    ],
)
def test_a_wrong_request_is_refused_with_a_hint(
    hilo: Hilo, house: House, arguments: list[str], code: int, said: str
) -> None:
    ran = hilo("log", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    as_json = hilo("log", *arguments, "--json")
    assert json.loads(as_json.err)["exit_code"] == code


@pytest.mark.parametrize(
    "arguments",
    [
        ["log", "tail"],
        ["log", "show", ANA],
        ["log", "stats"],
        ["log", "export"],
        ["users", "show", ANA],
        ["turns", "list"],
        ["turns", "retry", "--all"],
        ["turns", "drop", ANA, "--why", "test"],
        ["threads", "list"],
        ["threads", "check"],
        ["projections", "list"],
    ],
)
def test_where_nothing_is_nothing_is_made(
    hilo_process: Hilo, tmp_path: Path, arguments: list[str]
) -> None:
    ran = hilo_process(*arguments)
    assert (ran.code, ran.out) == (3, "")
    assert "nothing here yet" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_reading_leaves_the_files_as_they_were(
    hilo_process: Hilo, house: House, tmp_path: Path
) -> None:
    house.close()
    before = contents(tmp_path)
    for arguments in (
        ["log", "tail"],
        ["log", "show", ANA, "--open"],
        ["log", "stats"],
        ["log", "export", "--open"],
        ["users", "show", ANA],
        ["turns", "list"],
    ):
        assert hilo_process(*arguments).code == 0
    assert contents(tmp_path) == before


def test_another_bot_is_named_when_it_is_there(hilo: Hilo, house: House) -> None:
    ran = hilo("log", "stats", "--bot", "other")
    assert ran.code == 3
    assert "--bot default" in ran.err
    assert hilo("log", "stats", HILO_BOT="other").code == 3
    assert hilo("log", "stats", "--bot", "default", HILO_BOT="other").code == 0


def test_a_file_that_is_no_log_is_left_alone(hilo_process: Hilo, tmp_path: Path) -> None:
    path = tmp_path / "data" / "default" / "log.db"
    path.parent.mkdir(parents=True)
    for wrong in (b"", b"this is not a database, whatever its name says" * 100):
        path.write_bytes(wrong)
        assert hilo_process("log", "stats").code == 3
        assert path.read_bytes() == wrong
        assert os.listdir(path.parent) == ["log.db"]  # noqa: PTH208 - names are enough


def test_an_apology_can_be_opened(hilo: Hilo, house: House) -> None:
    person, stream = house.people[EVA], house.stream(EVA)
    sorry = house.sealer.seal(person, stream, "reply", e.Reply(parts=("Sorry, one moment.",)))
    parked = e.TurnParked(reason="failed", attempts=3, up_to=2, run="sorry_1", apology=sorry)
    house.append(EVA, parked)
    ran = hilo("log", "show", EVA, "--open", "--json")
    assert ran.lines[-1]["state"]["apology"] == {"parts": ["Sorry, one moment."]}
    assert hilo("log", "export", "--open").code == 0
