"""Thread files and guest memory of the old bot."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from app.conversation.facts import Person
from app.importing.legacy_json import read_clients, taken_at
from app.importing.records import Unreadable

ANA = {
    "threadId": "thread_abc123",
    "chatId": "15550100001@s.whatsapp.net",
    "userName": "Ana Prueba",
    "createdAt": "2025-07-28T10:30:00Z",
    "lastActivity": "2025-07-28T15:45:00Z",
    "name": "Ana P.",
    "labels": ["Consulta", "VIP"],
}


def micros(text: str) -> int:
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1_000_000)


def test_a_thread_file_is_read_field_by_field() -> None:
    file = read_clients(json.dumps({"15550100001": ANA}).encode(), "threads-data.json")
    (entry,) = file.entries
    assert entry.person == Person(phone="15550100001")
    assert (entry.thread, entry.chat) == ("thread_abc123", "15550100001@s.whatsapp.net")
    assert (entry.name, entry.labels) == ("Ana P.", ("Consulta", "VIP"))
    assert entry.created_at == micros("2025-07-28T10:30:00Z")
    assert entry.last_activity == micros("2025-07-28T15:45:00Z")
    assert not file.rejected


def test_guest_memory_has_labels_with_ids_and_no_thread() -> None:
    guest = {
        "name": "Ana Prueba",
        "whapiLabels": [{"id": "1", "name": "Potencial"}, {"id": "2", "name": "Consulta"}],
        "lastInteraction": "2025-07-28T15:45:00.250-05:00",
    }
    (entry,) = read_clients(
        json.dumps({"15550100001": guest}).encode(), "guest-memory.json"
    ).entries
    assert (entry.thread, entry.labels) == ("", ("Potencial", "Consulta"))
    assert entry.last_activity == micros("2025-07-28T20:45:00.250Z")


def test_fields_may_be_missing_and_unknown_ones_are_ignored() -> None:
    (entry,) = read_clients(b'{"15550100001": {"mood": 1}}', "threads.json").entries
    assert (entry.name, entry.labels, entry.thread) == (None, None, "")
    assert (entry.created_at, entry.last_activity) == (None, None)


def test_a_saved_map_of_pairs_and_milliseconds_are_read_too() -> None:
    content = b'[["15550100001", {"threadId": "thread_a", "createdAt": 1753698600000}]]'
    (entry,) = read_clients(content, "threads.json").entries
    assert (entry.thread, entry.created_at) == ("thread_a", micros("2025-07-28T10:30:00Z"))


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("threads-2025-07-21T17-36-13-918Z.json", "2025-07-21T17:36:13.918Z"),
        ("2025-03/threads-backup-2025-07-03T06-40-58-635Z.json", "2025-07-03T06:40:58.635Z"),
        ("threads-data.json", None),
        ("threads.json.backup", None),
        ("threads-2025-13-41T17-36-13-918Z.json", None),
    ],
)
def test_the_time_is_the_files_name(name: str, at: str | None) -> None:
    assert taken_at(name) == (None if at is None else micros(at))


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("Ana", {}, "neither a phone number"),
        ("123", {}, "neither a phone number"),
        ("120363000000000000@g.us", {}, "a group"),
        ("15550100001", 3, "Expected `object`"),
        ("15550100001", {"createdAt": "2025-07-28T10:30:00"}, "no zone"),
        ("15550100001", {"createdAt": "ayer"}, "not a time"),
        ("15550100001", {"lastActivity": 5}, "before there was WhatsApp"),
        ("15550100001", {"labels": "VIP"}, "labels"),
    ],
)
def test_a_member_that_cannot_be_used_is_rejected_and_its_neighbours_kept(
    key: str, value: object, reason: str
) -> None:
    content = json.dumps({"15550100009": ANA, key: value, "15550100008": ANA}, indent=0).encode()
    file = read_clients(content, "threads.json")
    assert [entry.person.phone for entry in file.entries] == ["15550100009", "15550100008"]
    (rejected,) = file.rejected
    assert reason in f"{rejected.path} {rejected.reason}"
    assert content.decode().splitlines()[rejected.line - 1].startswith(f'"{key}"')


@pytest.mark.parametrize(
    ("content", "paths"),
    [
        ({"15550100001": ANA, "15550100002": {"createdAt": "ayer"}, "Ana": {}},
         ['$["15550100002"].createdAt', "$.Ana"]),
        ({"15550100001": {"labels": ["VIP", 7]}, "15550100002": {"threadId": 1}},
         ['$["15550100001"].labels[1]', '$["15550100002"].threadId']),
        ({"15550100001": {"whapiLabels": [{"id": "1"}]}, 'a "b" ñ': ANA, "15550100003": None},
         ['$["15550100001"].whapiLabels[0]', '$["a \\"b\\" ñ"]', '$["15550100003"]']),
        ([["15550100001", ANA], ["15550100002", {"lastActivity": 5}]], ["$[1][1].lastActivity"]),
    ],
)  # fmt: skip
def test_what_is_rejected_is_named_by_its_path_though_all_is_in_one_line(
    content: object, paths: list[str]
) -> None:
    file = read_clients(json.dumps(content).encode(), "threads.json")
    assert [one.path for one in file.rejected] == paths
    for one in file.rejected:
        assert str(one) == f"threads.json:1: {one.path}: {one.reason}"


def test_a_file_that_breaks_off_keeps_what_came_before_and_says_where() -> None:
    content = json.dumps({"15550100001": ANA, "15550100002": ANA}, indent=1).encode()[:-40]
    file = read_clients(content, "threads.json")
    assert [entry.person.phone for entry in file.entries] == ["15550100001"]
    (rejected,) = file.rejected
    assert "breaks off here, in column" in rejected.reason
    assert rejected.path == ""


@pytest.mark.parametrize("content", [b"", b"hola", b"3", b'"x"', b"\xff", b"[1]", b"{1: 2}"])
def test_another_file_is_refused(content: bytes) -> None:
    with pytest.raises(Unreadable):
        read_clients(content, "threads.json")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"a": 1}', "x.json is JSON, but of no format"),
        (b'{"a": {"b": 1}}', "is JSON, but of no format"),
        (b"[1]", "is JSON, but of no format"),
        (b'[{"id": 1}, ["a", 2]]', "is JSON, but of no format"),
        (b"3", "is JSON, but of no format"),
        (b'{"a": 1,', "x.json is not JSON: .* in line 1"),
        (b"[1", "x.json is not JSON: .* in line 1"),
        (b"hola", "x.json is not JSON: .* in line 1"),
    ],
)
def test_it_is_told_apart_whether_a_file_is_no_json_or_of_no_format(
    content: bytes, says: str
) -> None:
    with pytest.raises(Unreadable, match=says):
        read_clients(content, "x.json")


@pytest.mark.parametrize(
    ("content", "path"),
    [
        (b'{"Ana": {"threadId": "thread_a"}}', "$.Ana"),
        (b'{"15550100001": 3}', '$["15550100001"]'),
        (b'{"120363000000000000-1@g.us": 3}', '$["120363000000000000-1@g.us"]'),
        (b'[["15550100001", {}], 7]', "$[1]"),
    ],
)
def test_a_file_of_a_known_format_is_not_refused_for_what_is_wrong_in_it(
    content: bytes, path: str
) -> None:
    (rejected,) = read_clients(content, "threads.json").rejected
    assert rejected.path == path


def test_an_empty_file_of_nobody_is_fine() -> None:
    assert read_clients(b"{}", "threads.json").entries == ()
