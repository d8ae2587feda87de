"""`threads.json` as those find it who read files: M001's format, and what `hilo import` says.

What a server does by itself is written here by its child process, as the server starts it.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.aggregates import events as e
from app.projections.bulk import worker_command
from eventstore.keyring import Handle
from tests.integration.cli.conftest import Hilo, environment
from tests.integration.cli.house import ANA, BEN, EVA, House
from tests.postgres import Databases

SECOND = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


class Written(Exception):
    """How the worker ended, if not well."""


def written(tmp_path: Path, *also: str, **variables: str) -> dict[str, Any]:
    """Write what is due and return what both files hold."""
    command = worker_command(tmp_path / "data" / "default", "thread-files", ())
    ended = subprocess.run(
        [*command, f"--tmp={tmp_path / 'tmp'}", *also],
        cwd=tmp_path,
        env=environment(tmp_path) | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise Written(ended.stderr)
    file = tmp_path / "tmp" / "threads.json"
    assert file.read_bytes() == (tmp_path / "tmp" / "threads.json.backup").read_bytes()
    members: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return members


def talked(house: House, phone: str, name: str, *, labels: tuple[str, ...] | None = None) -> None:
    """Let somebody be answered who calls themselves `name`."""
    person, stream = house.people[phone], house.stream(phone)
    if labels is not None:
        profile = house.sealer.seal(person, stream, "profile", e.Profile("Juan Pérez", labels))
        house.append(phone, e.ProfileUpdated(profile=profile))
    content = e.Content(message_id=f"m-{phone}", chat_id=phone, text="hola", name=name)
    sealed = house.sealer.seal(person, stream, "content", content)
    house.append(phone, e.MessageReceived(ref=b"m" * 16, kind="text", content=sealed))
    house.answer(phone, tokens=10)


@pytest.fixture
def full(house: House, hilo: Hilo) -> House:
    """Ana has no name, Ben has one of his own, Eva one in the address book; a lid has neither."""
    talked(house, BEN, "Ben 🙂")
    talked(house, EVA, "Juanito", labels=("Consulta", "VIP"))
    (person,) = house.keyring.register([(Handle("lid", "777000111222"),)])
    house.people["lid"] = person
    chat = house.sealer.seal(person, house.stream("lid"), "chat", "777000111222@lid")
    house.append("lid", e.UserRegistered(gateway="whapi", chat=chat))
    talked(house, "lid", "")
    assert hilo("projections", "rebuild").code == 0
    return house


def test_it_has_the_format_that_the_old_bot_wrote(full: House, tmp_path: Path) -> None:
    members = written(tmp_path)
    assert set(members) == {ANA, BEN, EVA, "777000111222@lid"}
    eva = members[EVA]
    assert list(eva) == [
        "threadId", "chatId", "userName", "createdAt", "lastActivity", "name", "labels",
    ]  # fmt: skip
    assert eva["threadId"] == f"conv_{EVA[-4:]}"
    assert eva["chatId"] == f"{EVA}@s.whatsapp.net"
    assert (eva["userName"], eva["name"]) == ("Juanito", "Juan Pérez")
    assert eva["labels"] == ["Consulta", "VIP"]
    assert re.fullmatch(SECOND, eva["createdAt"])
    assert re.fullmatch(SECOND, eva["lastActivity"])
    assert list(members[BEN]) == ["threadId", "chatId", "userName", "createdAt", "lastActivity"]
    assert (members[BEN]["userName"], members[ANA]["userName"]) == ("Ben 🙂", "")
    assert members["777000111222@lid"]["chatId"] == "777000111222@lid"


def test_to_import_it_changes_nothing(full: House, tmp_path: Path, hilo: Hilo) -> None:
    old = tmp_path / "threads-data.json"  # of people who were never seen since, and of when nobody
    old.write_text(
        json.dumps(
            {
                "573001234567": {
                    "threadId": "thread_abc123",
                    "userName": "Juan",
                    "createdAt": "2025-07-28T10:30:00Z",
                    "lastActivity": "2025-07-28T15:45:00Z",
                },
                "573001234568": {"threadId": "thread_x", "createdAt": "2025-07-28T10:30:00Z"},
                "573001234569": {"threadId": "thread_y", "userName": "Eva"},
            }
        )
    )
    assert hilo("import", old).code == 0
    assert hilo("projections", "rebuild").code == 0
    members = written(tmp_path)
    assert members["573001234567"]["lastActivity"] == "2025-07-28T15:45:00Z"
    head = full.log.head()
    for name in ("threads.json", "threads.json.backup"):
        ran = hilo("import", tmp_path / "tmp" / name, "--json")
        assert (ran.code, ran.json["known"], ran.json["rejected"]) == (0, len(members), [])
    assert full.log.head() == head
    assert written(tmp_path) == members


def test_both_names_of_an_import_are_in_it_and_come_back_elsewhere(
    full: House, tmp_path: Path, hilo: Hilo
) -> None:
    """What the address book calls somebody and what they call themselves are two things."""
    old, since = tmp_path / "threads-data.json", {"lastActivity": "2025-07-28T15:45:00Z"}
    people: dict[str, dict[str, Any]] = {
        "573001234567": {"userName": "Carla Prueba", "name": "Carla P", "labels": ["VIP"]},
        "573001234568": {"userName": "Dario"},
        "573001234569": {"name": "Eva"},
    }
    threads = {key: {"threadId": f"thread_{key}", **of, **since} for key, of in people.items()}
    threads["573001234569"].pop("lastActivity")  # nobody knows when: the log's time stands for it
    old.write_text(json.dumps(threads))
    assert hilo("import", old).code == 0
    assert hilo("projections", "rebuild").code == 0
    members = written(tmp_path)
    names = {key: (of["userName"], of.get("name")) for key, of in members.items() if key in people}
    assert names == {
        "573001234567": ("Carla Prueba", "Carla P"),
        "573001234568": ("Dario", None),
        "573001234569": ("", "Eva"),
    }
    assert hilo("users", "show", "573001234568", "--json").json["name"] == "Dario"
    head, file = full.log.head(), tmp_path / "tmp" / "threads.json"
    assert hilo("import", file).code == 0
    assert full.log.head() == head
    elsewhere = tmp_path / "elsewhere"
    there = {"HILO_DATA": str(elsewhere / "data")}
    assert hilo("import", file, **there).code == 0
    assert hilo("projections", "rebuild", **there).code == 0
    again = written(elsewhere)
    assert {key: (of["userName"], of.get("name")) for key, of in again.items()} == {
        key: (of["userName"], of.get("name")) for key, of in members.items()
    }


def test_a_conversation_that_was_left_is_not_in_it(full: House, tmp_path: Path, hilo: Hilo) -> None:
    assert BEN in written(tmp_path)
    full.append(BEN, e.ThreadReset(thread=f"conv_{BEN[-4:]}", reason="cleanup", left_behind=10))
    assert hilo("projections", "rebuild").code == 0
    assert BEN not in written(tmp_path, "--backup")


def test_whoever_was_forgotten_is_in_neither_file(full: House, tmp_path: Path) -> None:
    assert EVA in written(tmp_path)
    full.keyring.destroy(full.people[EVA])
    assert set(written(tmp_path)) == {ANA, BEN, "777000111222@lid"}
    raw = b"".join(path.read_bytes() for path in (tmp_path / "tmp").iterdir())
    assert EVA.encode() not in raw
    assert b"Juanito" not in raw


def test_files_that_cannot_be_written_do_not_keep_whom_was_forgotten(
    full: House, tmp_path: Path
) -> None:
    before = written(tmp_path)
    views = tmp_path / "data" / "default" / "views.db"
    views.rename(tmp_path / "views.db")
    with pytest.raises(Written, match="not been built"):
        written(tmp_path)
    assert json.loads((tmp_path / "tmp" / "threads.json").read_text("utf-8")) == before
    full.keyring.destroy(full.people[EVA])
    with pytest.raises(Written, match="not been built"):
        written(tmp_path)
    assert list((tmp_path / "tmp").iterdir()) == []
    (tmp_path / "views.db").rename(views)
    assert EVA not in written(tmp_path)


def test_a_name_that_nobody_can_open_is_left_out_and_the_person_stays(
    full: House, tmp_path: Path
) -> None:
    person = full.people[EVA]
    full.keyring.expire(person, full.keyring.generations(person))
    assert written(tmp_path)[EVA] | {"createdAt": "", "lastActivity": ""} == {
        "threadId": f"conv_{EVA[-4:]}",
        "chatId": f"{EVA}@s.whatsapp.net",
        "userName": "",
        "createdAt": "",
        "lastActivity": "",
    }


def test_it_is_the_same_on_postgresql(
    full: House, tmp_path: Path, hilo: Hilo, postgres: Databases
) -> None:
    before = written(tmp_path)
    log, keys = postgres.database(), postgres.database()
    moving = ("migrate-store", f"sqlite:{tmp_path / 'data'}", log, "--keys-to", keys)
    assert hilo(*moving).code == 0
    there = {"HILO_DATABASE_URL": log, "HILO_KEYS_DATABASE_URL": keys}
    assert hilo("projections", "rebuild", **there).code == 0
    assert written(tmp_path, **there) == before
    assert hilo("import", tmp_path / "tmp" / "threads.json", "--json", **there).json["known"] == 4
