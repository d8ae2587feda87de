"""The PostgreSQL that tests start: databases, roles, stops, crashes, standbys, and its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.postgres import Databases, PostgresServer
from tests.postgres_home import PATIENCE

ROOT = Path(__file__).parents[3]
RUNS_ON = """
import sys
from tests.postgres import PostgresServer
server = PostgresServer()
print(server.pid, server.data.parent, flush=True)
sys.stdin.read()
"""


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def test_a_database_is_empty_and_its_own(postgres: Databases) -> None:
    one, other = postgres.database(), postgres.database()
    rows(one, "CREATE TABLE mine (id int)")
    with pytest.raises(psycopg.errors.UndefinedTable):
        rows(other, "SELECT * FROM mine")
    postgres.drop(one)
    postgres.drop(other)
    with pytest.raises(psycopg.OperationalError):
        rows(one, "SELECT 1")


def test_a_role_may_log_in_and_nothing_else(postgres: Databases, postgres_url: str) -> None:
    rows(postgres_url, "CREATE TABLE mine (id int)")
    role = postgres.role(postgres_url)
    assert rows(role, "SELECT 1") == [(1,)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        rows(role, "SELECT * FROM mine")


def test_a_server_keeps_its_data_and_its_urls_through_stops_and_crashes(
    own_postgres: PostgresServer,
) -> None:
    url = own_postgres.database()
    tcp = own_postgres.tcp(url)
    rows(tcp, "CREATE TABLE mine AS SELECT 7 AS id")
    own_postgres.restart()
    assert rows(url, "SELECT id FROM mine") == [(7,)]
    own_postgres.kill()
    with pytest.raises(psycopg.OperationalError):
        rows(tcp, "SELECT 1")
    own_postgres.start()
    assert rows(tcp, "SELECT id FROM mine") == [(7,)]
    assert rows(url, "SHOW fsync") == [("on",)]


def test_a_server_can_be_made_read_only_and_mended(own_postgres: PostgresServer) -> None:
    own_postgres.reload(default_transaction_read_only="on")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        rows(own_postgres.tcp_url, "CREATE TABLE mine (id int)")
    own_postgres.reload(default_transaction_read_only="off")
    rows(own_postgres.tcp_url, "CREATE TABLE mine (id int)")


def test_a_standby_follows_refuses_writes_and_can_be_promoted(
    own_postgres: PostgresServer,
) -> None:
    rows(own_postgres.socket_url, "CREATE TABLE mine AS SELECT 7 AS id")
    standby = own_postgres.standby()
    assert rows(standby.tcp_url, "SELECT id FROM mine") == [(7,)]
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        rows(standby.tcp_url, "DELETE FROM mine")
    own_postgres.kill()
    standby.promote()
    rows(standby.tcp_url, "DELETE FROM mine")
    standby.close()


def test_an_older_copy_of_the_data_can_be_put_back(own_postgres: PostgresServer) -> None:
    own_postgres.stop()
    kept = own_postgres.keep_data("kept")
    own_postgres.start()
    rows(own_postgres.socket_url, "CREATE TABLE mine AS SELECT 7 AS id")
    own_postgres.stop()
    own_postgres.put_back(kept)
    own_postgres.start()
    with pytest.raises(psycopg.errors.UndefinedTable):
        rows(own_postgres.socket_url, "SELECT * FROM mine")


def test_a_server_ends_with_the_process_that_started_it_even_if_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUNS_ON],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as tests:
        assert tests.stdout is not None
        pid, directory = tests.stdout.readline().split()
        server = psutil.Process(int(pid))
        guard = next(p for p in psutil.Process(tests.pid).children() if p.name() == "sh")
        tests.kill()
    psutil.wait_procs([server, guard], timeout=PATIENCE)
    assert not server.is_running()
    assert not Path(directory).exists()
