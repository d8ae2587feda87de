"""`hilo nodes` and `hilo jobs`: who shares the work, and what the clock makes them do."""

from __future__ import annotations

import asyncio

import msgspec

from app.aggregates import job_events as e
from app.conversation.nodes import NodeStatus
from eventstore.codec import Event
from eventstore.store import Beat
from eventstore.types import Append, Micros, StreamName, new_append_id
from tests.integration.cli.conftest import Hilo
from tests.integration.cli.house import House

STREAM = StreamName("jobs/bot_keys")


def beat(house: House, node: str, release: str, status: bytes = b"") -> None:
    row = Beat(node, f"{node}1", release, Micros(1_800_000_000_000_000), status=status)
    asyncio.run(house.writer.save(row))


def job(house: House, *events: Event) -> None:
    version, epoch = house.log.stream_version(STREAM), house.log.head().epoch
    encoded = tuple(house.codec.encode(event) for event in events)
    house.writer.append_blocking(Append(STREAM, version, encoded, epoch, new_append_id()))


def test_nodes_of_two_releases_are_shown_side_by_side(hilo: Hilo, house: House) -> None:
    head = house.log.head().position
    said = msgspec.msgpack.encode(NodeStatus(position=head - 2, running=3, skew=1_500_000))
    beat(house, "a", "1.0", said)
    beat(house, "b", "1.1", b"\xc1 what a later release says")
    shown = hilo("nodes", "--json")
    assert shown.code == 0
    assert shown.json["alive"] == 2
    first, second = shown.json["nodes"]
    assert (first["node"], first["release"], first["alive"]) == ("a", "1.0", True)
    assert (first["lag"], first["running"], first["skew_seconds"]) == (2, 3, "1.500")
    assert (second["node"], second["release"], second["running"]) == ("b", "1.1", 0)


def test_what_people_read_of_a_node_is_no_id_and_says_what_waits(hilo: Hilo, house: House) -> None:
    beat(house, "a", "1.0", msgspec.msgpack.encode(NodeStatus(running=3, waiting=12, skew=1_500)))
    shown = hilo("nodes").out
    names, row = shown.splitlines()
    assert "turns running  turns waiting  clock ahead" in names
    assert row.split()[-4:] == ["3", "12", "0.002", "s"]
    assert "2027-01-15 08:00:00.000Z" in row
    assert "a1" not in row.split()
    (whole,) = hilo("nodes", "--json").json["nodes"]
    assert (whole["incarnation"], whole["waiting"]) == ("a1", 12)
    assert whole["since"] == "2027-01-15T08:00:00.000000Z"


def test_where_no_node_lives_the_exit_code_says_so(hilo: Hilo, house: House) -> None:
    assert hilo("nodes").code == 1
    beat(house, "a", "1.0")
    dead = hilo("nodes", "--json", HILO_DEAD_SECONDS="0.000001", HILO_BEAT_SECONDS="1e-9")
    assert dead.code == 1
    assert [node["alive"] for node in dead.json["nodes"]] == [False]


def test_jobs_are_listed_with_their_times_and_how_they_went(hilo: Hilo, house: House) -> None:
    idle = hilo("jobs", "list", "--json", HILO_TIMEZONE="Europe/Madrid").json["jobs"]
    assert [(row["name"], row["when"]) for row in idle] == [
        ("bot_keys", "daily at 03:00 Europe/Madrid"),
        ("node_rows", "daily at 03:30 Europe/Madrid"),
    ]
    job(house, e.JobStarted(slot=1_800_000_000_000_000, node="a", incarnation="a1"))
    assert hilo("jobs", "list", "--json").json["jobs"][0]["running on"] == "a"
    job(house, e.JobFailed(slot=1_800_000_000_000_000, code="KeyMissing"))
    failed = hilo("jobs", "list")
    assert failed.code == 1
    assert "KeyMissing" in failed.out
    assert "2027-01-15 08:00:00.000Z" in failed.out


def test_a_job_is_asked_for_by_an_event_that_names_who_did(hilo: Hilo, house: House) -> None:
    assert hilo("jobs", "run", "bot_keys", "--json").json == {"job": "bot_keys", "version": 1}
    (row,) = house.log.read_stream(STREAM)
    event = house.codec.decode(row.type, row.state)
    assert isinstance(event, e.JobRequested)
    assert event.by
    wrong = hilo("jobs", "run", "no_such_job")
    assert wrong.code == 2
    assert "bot_keys" in wrong.err
