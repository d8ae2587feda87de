"""`hilo import`: what exists before Hilo, through the command line."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from app.aggregates import events as e
from app.settings import load
from app.stores import open_log
from eventstore.types import Recorded
from tests.integration.cli.conftest import Hilo
from tests.integration.cli.house import ANA, House

NEW = "15550100001"
EXPORT = """28/7/25, 10:29 - Los mensajes están cifrados.
28/7/25, 10:30 - Ana: hola
¿hay sitio?
28/7/25, 10:31 - Hotel: sí
28/7/25, 10:31 - Hotel: sí
28/7/25, 10:32 - Ana: IMG-1.jpg (archivo adjunto)
"""
CHAT = ("--timezone", "America/Bogota", "--me", "Hotel")


def threads(path: Path, **people: Mapping[str, object]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({key.removeprefix("p"): value for key, value in people.items()}))
    return path


@pytest.fixture
def old_files(tmp_path: Path) -> tuple[Path, Path]:
    """The same person in a backup, in a folder of another month, and in the newest file."""
    backup = threads(
        tmp_path / "2025-03" / "threads-backup-2025-07-03T06-40-58-635Z.json",
        p15550100001={"threadId": "thread_a", "userName": "Ana P.", "createdAt": 1751365800000},
    )
    newest = threads(
        tmp_path / "threads-data.json",
        p15550100001={
            "threadId": "thread_b",
            "userName": "Ana Prueba",
            "labels": ["VIP"],
            "lastActivity": "2025-07-22T15:45:00Z",
        },
    )
    return newest, backup


@pytest.fixture
def export(tmp_path: Path) -> Path:
    path = tmp_path / "Chat de WhatsApp con +1 555 010 0001.txt"
    path.write_text(EXPORT)
    return path


def events(tmp_path: Path) -> list[Recorded]:
    log = open_log(load(data=tmp_path / "data"))
    try:
        return log.read(limit=10_000)
    finally:
        log.close()


def types(tmp_path: Path) -> list[str]:
    return [event.type for event in events(tmp_path)]


def test_files_are_told_in_the_order_of_their_times(
    hilo: Hilo, tmp_path: Path, old_files: tuple[Path, Path]
) -> None:
    ran = hilo("import", *old_files, "--json")
    assert ran.code == 0, ran.err
    assert ran.json == {
        "dry_run": False, "people": 1, "threads": 2, "profiles": 2, "activities": 2,
        "messages": 0, "known": 0, "dates": {}, "rejected": [],
    }  # fmt: skip
    assert types(tmp_path) == [
        "UserRegistered", "ProfileUpdated", "ThreadStarted", "ActivityRecorded",
        "ProfileUpdated", "ThreadReset", "ThreadStarted", "ActivityRecorded",
    ]  # fmt: skip
    shown = hilo("users", "show", NEW, "--json").json
    assert (shown["thread"]["id"], shown["name"]) == ("thread_b", "Ana Prueba")
    assert shown["last_activity"] == "2025-07-22T15:45:00.000000Z"


def test_whoever_is_asked_tells_the_original_times(hilo: Hilo, tmp_path: Path) -> None:
    began, active = "2025-07-28T10:30:00Z", "2025-07-28T15:45:00Z"
    member = {"threadId": "thread_a", "createdAt": began, "lastActivity": active}
    assert hilo("import", threads(tmp_path / "threads.json", p15550100001=member)).code == 0
    assert hilo("projections", "rebuild").code == 0
    told = began.replace("Z", ".000000Z"), active.replace("Z", ".000000Z")
    shown = hilo("users", "show", NEW, "--json").json
    assert (shown["thread"]["started_at"], shown["last_activity"]) == told
    (listed,) = hilo("threads", "list", "--json").json["threads"]
    assert (listed["started_at"], listed["last_activity"]) == told
    with closing(sqlite3.connect(tmp_path / "data" / "default" / "views.db")) as views:
        changes = views.execute("SELECT hour, reason, started FROM thread_changes").fetchall()
    assert changes == [("2025-07-28T10:00Z", "first_time", 1)]


def test_the_same_files_again_and_an_older_one_later_append_nothing(
    hilo: Hilo, tmp_path: Path, old_files: tuple[Path, Path], export: Path
) -> None:
    assert hilo("import", *old_files, export, *CHAT).code == 0
    before = events(tmp_path)
    again = hilo("import", *reversed(old_files), export, *CHAT, "--json")
    assert again.json["known"] == 2 + 5
    assert hilo("import", old_files[1]).code == 0
    assert events(tmp_path) == before


def test_a_longer_export_of_the_same_chat_appends_what_is_new(
    hilo: Hilo, tmp_path: Path, export: Path
) -> None:
    assert hilo("import", export, *CHAT, "--json").json["messages"] == 5
    export.write_text(EXPORT + "28/7/25, 10:31 - Hotel: sí\n28/7/25, 10:40 - Ana: gracias\n")
    assert hilo("import", export, *CHAT, "--json").json == {
        "dry_run": False, "people": 0, "threads": 0, "profiles": 0, "activities": 0,
        "messages": 2, "known": 5, "rejected": [],
        "dates": {export.name: {"order": "dmy", "assumed": False}},
    }  # fmt: skip
    tail = hilo("log", "tail", "--open", "-n", "1").out
    assert "gracias" in tail
    assert "imported of 2025-07-28 15:40" in tail


def test_a_dry_run_says_what_would_be_done_and_makes_nothing(
    hilo: Hilo, tmp_path: Path, old_files: tuple[Path, Path], export: Path
) -> None:
    ran = hilo("import", *old_files, export, *CHAT, "--dry-run", "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["people"], ran.json["messages"]) == (1, 5)
    assert not (tmp_path / "data").exists()


def test_a_dry_run_beside_a_log_leaves_log_and_keys_as_they_were(
    hilo: Hilo, tmp_path: Path, house: House, export: Path
) -> None:
    before = events(tmp_path)
    ran = hilo("import", export, *CHAT, "--dry-run", "--json")
    assert (ran.json["people"], ran.json["messages"]) == (1, 5)
    assert events(tmp_path) == before
    assert hilo("users", "show", NEW).code == 1


def test_what_cannot_be_read_is_listed_with_its_line_and_the_rest_imported(
    hilo: Hilo, tmp_path: Path
) -> None:
    path = tmp_path / "threads.json"
    path.write_text('{\n"15550100001": {},\n"nobody": {},\n"15550100002": {"createdAt": "ayer"}\n}')
    ran = hilo("import", path)
    assert ran.code == 1
    assert "threads.json:3: $.nobody: the key is neither" in ran.err
    assert 'threads.json:4: $["15550100002"].createdAt: createdAt is not a time' in ran.err
    assert types(tmp_path) == ["UserRegistered"]


def test_what_hilo_has_seen_itself_is_not_overruled(
    hilo: Hilo, tmp_path: Path, house: House
) -> None:
    before = events(tmp_path)
    key = f"p{ANA}"
    old = {"threadId": "thread_a", "lastActivity": "2025-07-22T15:45:00Z"}
    ran = hilo("import", threads(tmp_path / "threads.json", **{key: old}), "--json")
    assert (ran.json["threads"], ran.json["known"]) == (0, 1)
    assert events(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("CHAT",), "--timezone"),
        (("CHAT", "--timezone", "Luna"), "no such zone"),
        (("CHAT", "--timezone", "UTC"), "say --me NAME"),
        (("CHAT", "--timezone", "UTC", "--me", "Nadie"), "nobody is called 'Nadie'"),
        (("other.txt", "--timezone", "UTC", "--me", "Hotel"), "say --user"),
        (("CHAT", *CHAT, "--user", "Ana"), "phone number"),
        (("broken.json",), "is not JSON"),
        (("else.json",), "is JSON, but of no format"),
    ],
)
def test_wrong_usage_says_what_to_do_and_makes_nothing(
    hilo: Hilo, tmp_path: Path, export: Path, arguments: tuple[str, ...], says: str
) -> None:
    (tmp_path / "other.txt").write_text(EXPORT)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "else.json").write_text('{"a": 1}')
    ran = hilo("import", *(str(export) if a == "CHAT" else a for a in arguments))
    assert ran.code == 2
    assert says in ran.err
    assert not (tmp_path / "data").exists()


def test_a_file_that_is_not_there_cannot_be_reached(hilo: Hilo) -> None:
    ran = hilo("import", "nowhere.json")
    assert (ran.code, "nowhere.json" in ran.err) == (3, True)


def test_nothing_imported_is_readable_in_the_log(
    hilo: Hilo, tmp_path: Path, old_files: tuple[Path, Path], export: Path
) -> None:
    assert hilo("import", *old_files, export, *CHAT).code == 0
    raw = b"".join(path.read_bytes() for path in (tmp_path / "data" / "default").glob("log.db*"))
    for secret in (NEW.encode(), b"Ana P", "¿hay sitio?".encode(), b"VIP", b"IMG-1.jpg"):
        assert secret not in raw


def test_no_imported_message_waits_for_an_answer(hilo: Hilo, tmp_path: Path, export: Path) -> None:
    assert hilo("import", export, *CHAT).code == 0
    assert hilo("turns", "list", "--json").json["turns"] == []
    assert types(tmp_path).count(e.MessageImported.__name__) == 5
