"""`hilo turns`: operators see what is open, and decide beside a running server (A20)."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from app.aggregates import events as e
from app.aggregates.answers import Done
from app.aggregates.user import User
from app.cli.replay import decide
from app.control import operator
from app.installation import Installation
from app.settings import load
from eventstore.types import Micros
from tests.integration.cli.conftest import Hilo
from tests.integration.cli.house import ANA, BEN, EVA, House


def test_every_open_and_parked_turn_is_listed_the_oldest_first(hilo: Hilo, house: House) -> None:
    listed = hilo("turns", "list", "--json").json
    assert listed["position"] == house.log.head().position
    assert [(turn["user"], turn["state"]) for turn in listed["turns"]] == [
        (house.people[BEN], "parked"),
        (house.people[EVA], "waiting"),
    ]
    assert listed["turns"][0]["messages"] == 1
    only = hilo("turns", "list", "--parked", "--json").json["turns"]
    assert [turn["user"] for turn in only] == [house.people[BEN]]
    assert house.people[BEN] in hilo("turns", "list").out


def test_running_and_delivering_turns_are_listed_with_what_they_do(
    hilo: Hilo, house: House
) -> None:
    version = house.log.stream_version(house.stream(EVA))
    run = e.RunStarted(run="run-7", node="north", incarnation="i", attempt=2, up_to=version)
    house.append(EVA, run)
    house.write(EVA, "one more thing")
    states = {
        turn["state"]: turn
        for turn in hilo("turns", "list", "--json").json["turns"]
        if turn["user"] == house.people[EVA]
    }
    assert set(states) == {"running", "waiting"}
    assert states["running"]["detail"] == "run run-7 on north"
    assert states["running"]["attempts"] == 2
    reply = house.sealer.seal(house.people[EVA], house.stream(EVA), "reply", e.Reply(("a", "b")))
    house.append(EVA, e.RunCompleted(run="run-7", response="r", reply=reply, parts=2))
    details = [turn["detail"] for turn in hilo("turns", "list", "--json").json["turns"]]
    assert "reply of run run-7, part 1 of 2" in details


def test_the_servers_to_do_list_saves_looking_at_everybody(
    hilo: Hilo, house: House, tmp_path: Path
) -> None:
    cursor = house.log.cursor_at(house.log.head().position)
    listed = sqlite3.connect(tmp_path / "data" / "default" / "todo.db")
    with listed:
        listed.execute("CREATE TABLE todo (stream TEXT PRIMARY KEY)")
        listed.execute("CREATE TABLE todo_cursor (id, epoch, position, leaf)")
        listed.execute(
            "INSERT INTO todo_cursor VALUES (1, ?, ?, ?)",
            (cursor.epoch, cursor.position, cursor.leaf),
        )
    assert [t["user"] for t in hilo("turns", "list", "--json").json["turns"]] == [
        house.people[BEN]  # Eva waits, but the list says that nobody has open work
    ]
    house.write(ANA, "again")  # after the list's position: looked at
    assert house.people[ANA] in hilo("turns", "list").out
    with listed:
        listed.execute("UPDATE todo_cursor SET leaf = x'00'")  # made from another log
    listed.close()
    assert house.people[EVA] in hilo("turns", "list").out


def test_a_parked_turn_is_made_due_again(hilo_process: Hilo, house: House) -> None:
    ran = hilo_process("turns", "retry", BEN, "--why", "OpenAI is back", "--json")
    assert ran.code == 0
    assert ran.json["turns"] == [{"user": house.people[BEN], "outcome": "done"}]
    (recorded,) = house.log.read_stream(house.stream(BEN))[-1:]
    event = house.codec.decode(recorded.type, recorded.state)
    assert isinstance(event, e.TurnRetried)
    assert (event.by, event.why) == (operator(), "OpenAI is back")
    turns = hilo_process("turns", "list", "--json").json["turns"]
    assert {(turn["user"], turn["state"]) for turn in turns} == {
        (house.people[BEN], "waiting"),
        (house.people[EVA], "waiting"),
    }


def test_a_parked_turn_is_dropped_once(hilo: Hilo, house: House) -> None:
    assert hilo("turns", "drop", house.people[BEN], "--why", "spam").code == 0
    before = house.log.head()
    again = hilo("turns", "drop", house.people[BEN], "--why", "spam")
    assert again.code == 1
    assert "nothing parked" in again.out
    assert house.log.head() == before


def test_all_parked_turns_are_changed_together(hilo: Hilo, house: House) -> None:
    house.park(EVA)
    ran = hilo("turns", "drop", "--all", "--why", "outage", "--json")
    assert ran.code == 0
    assert {turn["user"] for turn in ran.json["turns"]} == {house.people[BEN], house.people[EVA]}
    none_left = hilo("turns", "retry", "--all")
    assert (none_left.code, none_left.out) == (0, "")
    assert "no turn is parked" in none_left.err


def test_a_turn_is_not_retried_while_another_runs(hilo: Hilo, house: House) -> None:
    house.write(BEN, "hello?")
    version = house.log.stream_version(house.stream(BEN))
    house.append(BEN, e.RunStarted(run="r", node="n", incarnation="i", attempt=1, up_to=version))
    ran = hilo("turns", "retry", BEN)
    assert ran.code == 1
    assert "busy" in ran.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["retry"], 2, "--all"),
        (["retry", BEN, "--all"], 2, "--all"),
        (["drop", BEN], 2, "--why"),
        (["drop", BEN, "--why", " "], 2, "--why"),
        (["retry", "nobody"], 1, "nobody in this log"),
        (["list", BEN], 2, "hilo turns list --help"),
    ],
)
def test_a_wrong_request_changes_nothing(
    hilo: Hilo, house: House, arguments: list[str], code: int, said: str
) -> None:
    before = house.log.head()
    ran = hilo("turns", *arguments)
    assert ran.code == code
    assert said in ran.err
    assert house.log.head() == before


def test_a_decision_is_made_again_when_the_server_appends_at_the_same_time(house: House) -> None:
    asked: list[int] = []

    def command(user: User, now: Micros) -> bool:
        asked.append(user.version)
        if len(asked) == 1:
            house.write(BEN, "wait!")  # the server, in between
        return isinstance(user.turn_dropped("me", now=now, why="test"), Done)

    with Installation(load(data=house.data)) as here:
        assert decide(here, house.stream(BEN), command)
    assert asked == [3, 4]
    assert [r.type for r in house.log.read_stream(house.stream(BEN))][-2:] == [
        "MessageReceived",
        "TurnDropped",
    ]


def test_decisions_and_traffic_of_two_processes_do_not_harm_each_other(
    hilo_process: Hilo, house: House
) -> None:
    stop = threading.Event()
    written = 0

    def traffic() -> None:
        nonlocal written
        while not stop.wait(0.001):
            house.write(EVA, f"message {written}")
            written += 1

    server = threading.Thread(target=traffic)
    server.start()
    try:
        for _ in range(3):
            assert hilo_process("turns", "retry", BEN).code == 0
            house.park(BEN)
    finally:
        stop.set()
        server.join()
    events = house.log.read(limit=100_000)
    assert [event.position for event in events] == list(range(1, len(events) + 1))
    assert sum(event.type == "TurnRetried" for event in events) == 3
    assert sum(event.stream == house.stream(EVA) for event in events) == written + 2
