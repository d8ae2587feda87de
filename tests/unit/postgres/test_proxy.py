"""The network that fails when told to, before a real PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Literal

import psycopg
import pytest

from tests.postgres import PostgresServer
from tests.postgres_home import PATIENCE
from tests.tcp_proxy import TcpProxy, _arrives


@pytest.fixture(scope="module")
def server(postgres_home: None) -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.execute("CREATE TABLE mine (id int)")
    yield server
    server.close()


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[TcpProxy]:
    server.execute("TRUNCATE mine")
    with TcpProxy(server.port) as proxy:
        yield proxy


def connect(server: PostgresServer, proxy: TcpProxy) -> psycopg.Connection:
    return psycopg.connect(proxy.url(server.tcp_url), autocommit=True)


def ids(server: PostgresServer) -> list[object]:
    return [row[0] for row in server.execute("SELECT id FROM mine")]


def test_what_passes_is_unchanged(server: PostgresServer, proxy: TcpProxy) -> None:
    long = "x" * 5_000_000
    with connect(server, proxy) as client:
        assert client.execute("SELECT %s || 'y'", [long]).fetchall() == [(long + "y",)]
        assert proxy.connections == 1


def test_a_cut_ends_connections_and_new_ones_work(server: PostgresServer, proxy: TcpProxy) -> None:
    with connect(server, proxy) as client:
        proxy.cut()
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
    with connect(server, proxy) as client:
        assert client.execute("SELECT 1").fetchall() == [(1,)]


def test_new_connections_are_refused_until_accepted(
    server: PostgresServer, proxy: TcpProxy
) -> None:
    proxy.refuse()
    with pytest.raises(psycopg.OperationalError):
        connect(server, proxy)
    proxy.accept()
    connect(server, proxy).close()


@pytest.mark.parametrize(("when", "stored"), [("before", []), ("after", [7])])
def test_a_connection_is_cut_around_one_request(
    server: PostgresServer, proxy: TcpProxy, when: Literal["before", "after"], stored: list[int]
) -> None:
    trap = proxy.cut_around(b"mine VALUES (7)", when)
    with connect(server, proxy) as client:
        client.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            client.execute("INSERT INTO mine VALUES (7)")
    assert trap.sprung.is_set()
    assert ids(server) == stored
    with connect(server, proxy) as client:  # a trap springs once
        client.execute("INSERT INTO mine VALUES (7)")
    assert ids(server) == [*stored, 7]


@pytest.mark.parametrize(("direction", "stored"), [("up", []), ("down", [7])])
def test_a_frozen_direction_holds_what_is_sent_until_it_is_resumed(
    server: PostgresServer, proxy: TcpProxy, direction: Literal["up", "down"], stored: list[int]
) -> None:
    with connect(server, proxy) as client:
        proxy.freeze(direction)
        caller = threading.Thread(
            target=client.execute, args=["INSERT INTO mine VALUES (7)"], daemon=True
        )
        caller.start()
        if stored:
            while ids(server) != stored:  # the request arrives though its answer cannot
                assert caller.is_alive()
        assert caller.is_alive()
        assert ids(server) == stored
        proxy.resume()
        caller.join(PATIENCE)
        assert not caller.is_alive()
    assert ids(server) == [7]


def test_a_stranded_connection_says_nothing_more_while_new_ones_work(
    server: PostgresServer, proxy: TcpProxy
) -> None:
    with connect(server, proxy) as old:
        proxy.strand()
        caller = threading.Thread(target=_ask, args=[old], daemon=True)
        caller.start()
        with connect(server, proxy) as new:
            assert new.execute("SELECT 1").fetchall() == [(1,)]
        assert caller.is_alive()
        proxy.cut()
        caller.join(PATIENCE)
        assert not caller.is_alive()


def _ask(connection: psycopg.Connection) -> None:
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")


def test_a_marker_is_found_across_pieces_and_only_where_it_ends() -> None:
    assert _arrives(b"COMMIT", b"", b"a COMMIT b")
    assert _arrives(b"COMMIT", b"a COM", b"MIT b")
    assert not _arrives(b"COMMIT", b"a COMMIT", b" b")
    assert not _arrives(b"COMMIT", b"M", b"MIT")
