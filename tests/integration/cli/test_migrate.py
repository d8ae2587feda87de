"""`hilo migrate-store`: a whole bot moves, log and keys, and is the same bot at the other end."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from app import control
from app.addresses import without_secrets
from app.lock import exclusive, exclusive_directory
from app.projections import MODELS, Views
from app.projections.rebuild import rebuild
from app.settings import load
from eventstore.keyring import BOT, Handle, KeyEncryptionKey, Keyring
from eventstore.migrate_sqlite import SqliteTarget
from eventstore.postgres import PostgresLog
from eventstore.postgres_keystore import PostgresKeyStore
from eventstore.sqlite import SQLiteLog, system_clock
from eventstore.store import Beat, LogReader
from eventstore.types import Micros
from tests.integration.cli.conftest import Hilo, environment
from tests.integration.cli.house import ANA, ANA_LID, House
from tests.postgres import Databases

SCHEMA = "bot_default"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory whose server is stopped."""
    with House(tmp_path / "data") as house:
        house.furnish()
    return tmp_path / "data"


@pytest.fixture
def keys_url(postgres: Databases) -> Iterator[str]:
    url = postgres.database()
    yield url
    postgres.drop(url)


def views_of(log: LogReader, path: Path) -> list[str]:
    """What the read models are, rebuilt from a log."""
    views = Views.owned(path)
    rebuild(views, log, MODELS)
    views.close()
    connection = sqlite3.connect(path)
    tables = [
        name for (name,) in connection.execute("SELECT name FROM sqlite_master") if "_" in name
    ]
    rows = [
        f"{table}: {row}"
        for table in sorted(tables)
        if table in {"thread_map", "token_totals"}
        for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2")
    ]
    connection.close()
    return rows


def test_a_bot_moves_to_postgresql_and_back(
    tmp_path: Path, data: Path, hilo: Hilo, postgres_url: str, keys_url: str
) -> None:
    files = [data / "default" / name for name in ("log.db", "keys.db")]
    before = [hashlib.sha256(file.read_bytes()).digest() for file in files]
    there = hilo("migrate-store", f"sqlite:{data}", postgres_url, "--keys-to", keys_url, "--json")
    assert there.code == 0, there.err
    assert [hashlib.sha256(file.read_bytes()).digest() for file in files] == before
    source = SQLiteLog(data / "default" / "log.db")
    head = source.head()
    assert there.json["events"] == head.position
    assert there.json["epoch"] == head.epoch
    assert there.json["resumed_at"] == 0
    assert set(there.json["set"]) == {"HILO_BOT", "HILO_DATABASE_URL", "HILO_KEYS_DATABASE_URL"}

    log = PostgresLog(postgres_url, schema=SCHEMA)
    assert log.head() == head
    assert log.read(limit=1000) == source.read(limit=1000)
    told = views_of(log, tmp_path / "theirs.db")
    assert told == views_of(source, tmp_path / "ours.db")
    assert told
    log.close()

    kek = KeyEncryptionKey.from_file(data / "kek")
    keyring = Keyring(PostgresKeyStore(keys_url, SCHEMA), kek, clock=system_clock)
    with House(data) as house:
        person = house.keyring.find((Handle("phone", ANA),))
        assert person is not None
        assert keyring.find((Handle("lid", ANA_LID),)) == person
        assert keyring.fingerprint("wamid") == house.keyring.fingerprint("wamid")
        for owner in (person, BOT):
            assert keyring.generations(owner) == house.keyring.generations(owner)
            assert keyring.key_for(owner, keyring.generation(owner)) is not None
    keyring.close()

    back = hilo(
        *("migrate-store", "postgres", f"sqlite:{tmp_path / 'back'}", "--json"),
        HILO_DATABASE_URL=postgres_url,
        HILO_KEYS_DATABASE_URL=keys_url,
    )
    assert back.code == 0, back.err
    assert back.json["set"]["HILO_DATABASE_URL"] == ""
    again = SQLiteLog(tmp_path / "back" / "default" / "log.db")
    assert again.read(limit=1000) == source.read(limit=1000)
    again.close()
    source.close()
    keyring = Keyring.open(tmp_path / "back" / "default" / "keys.db", kek, clock=system_clock)
    assert keyring.find((Handle("phone", ANA),)) == person
    keyring.close()


def test_a_person_reads_what_was_copied_and_what_to_set(
    data: Path, hilo: Hilo, postgres_url: str, keys_url: str
) -> None:
    secret = "hunter2"
    given = postgres_url.replace("postgres@", f"postgres:{secret}@")
    ran = hilo("migrate-store", f"sqlite:{data}", given, "--keys-to", keys_url)
    assert ran.code == 0
    assert "events per second" in ran.out
    assert "HILO_DATABASE_URL=postgresql://" in ran.err
    assert "HILO_KEYS_DATABASE_URL=postgresql://" in ran.err
    assert secret not in ran.out + ran.err


def test_a_bot_that_is_served_is_not_moved(
    data: Path, hilo: Hilo, postgres_url: str, keys_url: str
) -> None:
    to = (postgres_url, "--keys-to", keys_url)
    with exclusive_directory(data / "default", "the bot's directory"):
        ran = hilo("migrate-store", f"sqlite:{data}", *to)
    assert ran.code == 3
    assert "is in use" in ran.err
    assert hilo("migrate-store", f"sqlite:{data}", *to).code == 0
    log = PostgresLog(postgres_url, schema=SCHEMA)
    log.append_batch([], beats=[Beat("node-1", "a", "1", Micros(0))])
    log.close()
    ran = hilo("migrate-store", postgres_url, "sqlite:elsewhere", "--keys-from", keys_url)
    assert ran.code == 3
    assert "served by node-1" in ran.err


def test_the_control_log_moves_by_itself(
    tmp_path: Path, data: Path, hilo: Hilo, postgres_url: str, keys_url: str
) -> None:
    control.acted(load(data=data), "turns drop", bot="default", why="a test")
    source = SQLiteLog(data / "control.db")
    before = source.read()
    source.close()
    ran = hilo("migrate-store", "--control", f"sqlite:{data}", postgres_url, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["events"] == len(before) > 0
    log = PostgresLog(postgres_url, schema="control")
    *moved, last = log.read()
    log.close()
    assert moved == before
    assert last.stream == "installation"
    assert b"migrate-store --control" in last.state
    assert str(data / "control.db").encode() in last.state
    with exclusive(data / "serve.lock", "the data directory"):
        ran = hilo("migrate-store", "--control", f"sqlite:{data}", "sqlite:elsewhere")
    assert ran.code == 3
    assert "is in use" in ran.err


def test_a_move_is_on_record_and_goes_along_when_the_control_log_moves(
    tmp_path: Path, data: Path, hilo: Hilo, postgres_url: str, keys_url: str
) -> None:
    """As docs/growing.md has it: the settings name the new place, the bot moves, then the rest."""
    control.acted(load(data=data), "turns drop", bot="default", why="a test")
    there = {"HILO_DATABASE_URL": postgres_url, "HILO_KEYS_DATABASE_URL": keys_url}
    ran = hilo("migrate-store", f"sqlite:{data}", "postgres", **there)
    assert ran.code == 0, ran.err
    assert hilo("migrate-store", "--control", f"sqlite:{data}", "postgres", **there).code == 0
    told = [line["state"] for line in hilo("control", "log", "--json", **there).lines]
    assert [state["action"] for state in told] == [
        "turns drop",
        "migrate-store",
        "migrate-store --control",
    ]
    _, bot, _ = told
    assert bot["bot"] == "default"
    assert bot["by"].startswith(f"{control.operator()}@")
    origin, goal = bot["about"]
    assert origin == f"from {data / 'default' / 'log.db'}"
    assert goal == f"to {without_secrets(postgres_url)} schema {SCHEMA}"
    back = hilo("migrate-store", "postgres", f"sqlite:{tmp_path / 'back'}", **there)
    assert back.code == 0, back.err
    last = hilo("control", "log", "--json", **there).lines[-1]
    assert last["state"]["about"][1] == f"to {tmp_path / 'back' / 'default' / 'log.db'}"


def test_a_refused_move_is_not_on_record(data: Path, hilo: Hilo, tmp_path: Path) -> None:
    with exclusive_directory(data / "default", "the bot's directory"):
        assert hilo("migrate-store", f"sqlite:{data}", f"sqlite:{tmp_path / 'x'}").code == 3
    assert hilo("control", "log").code == 3, "there is no control log"


def test_a_half_copied_bot_is_not_served(data: Path, tmp_path: Path, hilo: Hilo) -> None:
    source = SQLiteLog(data / "default" / "log.db")
    target = SqliteTarget(tmp_path / "half" / "default" / "log.db")
    target.begin(source.head())
    target.close()
    source.close()
    refused = "is half copied: run hilo migrate-store again"
    for command in (("log", "stats"), ("threads", "list")):
        ran = hilo(*command, "--data", tmp_path / "half")
        assert ran.code == 3
        assert refused in ran.err
    serve = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--data", "half"]
    served = subprocess.run(
        serve, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert served.returncode == 3
    assert refused in served.stderr
    assert not (tmp_path / "half" / "default" / "log.db").exists()


def test_a_keyring_of_somebody_else_is_not_written_to(
    data: Path, hilo: Hilo, postgres_url: str, keys_url: str
) -> None:
    other = PostgresKeyStore(keys_url, SCHEMA)
    Keyring(other, KeyEncryptionKey.from_bytes(bytes(32)), clock=system_clock).close()
    ran = hilo("migrate-store", f"sqlite:{data}", postgres_url, "--keys-to", keys_url)
    assert ran.code == 1
    assert "holds another keyring already" in ran.err
    with psycopg.connect(postgres_url) as database:  # a log there would be as usable as before
        marks = database.execute(
            "SELECT count(*) FROM pg_tables WHERE tablename = 'copying'"
        ).fetchone()
    assert marks == (0,)


@pytest.mark.parametrize(
    ("arguments", "complaint", "code"),
    [
        (("sqlite:data", "mysql://x"), "a log is in sqlite:DIR", 2),
        (("sqlite:data", "postgres"), "a log is in sqlite:DIR", 2),
        (("sqlite:data", "postgresql://h/x"), "the keys need a database of their own", 2),
        (("sqlite:data", "sqlite:data"), "are both", 2),
        (("sqlite:nowhere", "sqlite:data"), "there is no log in nowhere", 3),
        (("sqlite:data",), "Missing argument 'TO'", 2),
    ],
)
def test_a_place_that_cannot_be_meant_is_refused(
    data: Path, hilo: Hilo, arguments: tuple[str, ...], complaint: str, code: int
) -> None:
    ran = hilo("migrate-store", *arguments)
    assert ran.code == code
    assert complaint in ran.err
    assert not Path("nowhere").exists()
