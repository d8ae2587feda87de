"""What a keyring's store in PostgreSQL promises beyond a file's: its role, its way back."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest

from eventstore.errors import KeyringError, LogUnavailable
from eventstore.postgres_keystore import PostgresKeyStore, holds_keyring, prepare
from eventstore.postgres_link import Waits
from eventstore.types import Micros
from tests.postgres import Databases, PostgresServer
from tests.tcp_proxy import TcpProxy

SHORT = Waits(connect=2.0, lock=0.2, statement=0.2)


@pytest.fixture
def role_url(postgres: Databases, postgres_url: str) -> Iterator[str]:
    """The URL of a prepared keyring for its own role."""
    url = postgres.role(postgres_url, "keys")
    prepare(postgres_url, "bot", urlsplit(url).username or "")
    yield url
    postgres.execute(f'DROP OWNED BY "{urlsplit(url).username}"', postgres_url)


def fill(store: PostgresKeyStore) -> None:
    with store.transaction():
        store.put_secret("check", b"wrapped")
        store.put_identity(b"hash", "person", b"box")
        store.put_key("person", 1, b"wrapped", Micros(0))


# --- who may what --------------------------------------------------------------------------------


def test_the_keyring_s_role_may_do_all_that_the_port_asks_for(role_url: str) -> None:
    store = PostgresKeyStore(role_url, "bot")
    fill(store)
    store.put_identity(b"hash", "somebody new", b"other box")
    store.expire("person", 1, Micros(0))
    store.erase("person")
    store.wipe()
    assert not store.wipe_due()
    store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE bot.keys SET wrapped = ''",
        "UPDATE bot.secrets SET wrapped = ''",
        "UPDATE bot.identities SET handle_hmac = ''",
        "UPDATE bot.keyring SET version = 2",
        "DELETE FROM bot.secrets",
        "DELETE FROM bot.keyring",
        "TRUNCATE bot.keys",
        "DROP TABLE bot.keys",
        "CREATE TABLE bot.more ()",
    ],
)
def test_the_keyring_s_role_may_do_no_more(role_url: str, statement: str) -> None:
    with psycopg.connect(role_url) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)
        connection.rollback()


def test_the_log_s_role_cannot_even_connect(
    postgres: Databases, postgres_url: str, role_url: str
) -> None:
    log_role = postgres.role(postgres_url, "log")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(log_role).close()
    with pytest.raises(LogUnavailable, match="permission denied"):
        PostgresKeyStore(log_role, "bot")


def test_preparing_again_changes_nothing(postgres_url: str, role_url: str) -> None:
    store = PostgresKeyStore(role_url, "bot")
    fill(store)
    prepare(postgres_url, "bot", urlsplit(role_url).username or "")
    assert store.key("person", 1) == b"wrapped"
    store.close()


def test_a_role_that_may_not_make_the_schema_is_told_who_can(role_url: str) -> None:
    with pytest.raises(KeyringError, match="prepare it as the owner"):
        PostgresKeyStore(role_url, "another bot")


def test_only_the_owner_can_close_a_database_to_others(
    postgres: Databases, postgres_url: str
) -> None:
    maker = postgres.role(postgres_url, "maker")
    name = urlsplit(maker).username or ""
    database = urlsplit(postgres_url).path[1:]
    postgres.execute(f'GRANT CREATE ON DATABASE {database} TO "{name}"', postgres_url)
    with pytest.raises(KeyringError, match="is open to every role"):
        prepare(maker, "bot", name)
    postgres.execute(f'DROP OWNED BY "{name}"', postgres_url)


def test_a_wipe_that_the_role_may_not_do_is_not_taken_for_one(
    postgres: Databases, postgres_url: str, role_url: str
) -> None:
    role = urlsplit(role_url).username
    postgres.execute(f'REVOKE MAINTAIN ON bot.keys FROM "{role}"', postgres_url)
    store = PostgresKeyStore(role_url, "bot")
    store.erase("person")
    with pytest.raises(KeyringError, match="permission denied"):
        store.wipe()
    assert store.wipe_due()
    store.close()


def test_two_bots_of_one_database_know_nothing_of_each_other(postgres_url: str) -> None:
    one, two = (PostgresKeyStore(postgres_url, name) for name in ("one", 'two "2"'))
    fill(one)
    assert not two.holds_people()
    with one.transaction():  # nor do they wait for each other
        fill(two)
    two.erase("person")
    assert one.key("person", 1) == b"wrapped"
    assert one.destructions() == 0
    one.close()
    two.close()


def test_a_schema_of_a_newer_release_is_refused(postgres: Databases, postgres_url: str) -> None:
    PostgresKeyStore(postgres_url, "bot").close()
    postgres.execute("UPDATE bot.keyring SET version = 99", postgres_url)
    with pytest.raises(KeyringError, match="made by a newer release"):
        PostgresKeyStore(postgres_url, "bot")
    with pytest.raises(KeyringError, match="made by a newer release"):
        prepare(postgres_url, "bot", "postgres")


def test_looking_for_a_keyring_makes_none(postgres_url: str) -> None:
    assert not holds_keyring(postgres_url, "bot")
    assert not holds_keyring(postgres_url, "bot")
    store = PostgresKeyStore(postgres_url, "bot")
    assert not holds_keyring(postgres_url, "bot")
    fill(store)
    assert holds_keyring(postgres_url, "bot")
    store.close()


# --- outages -------------------------------------------------------------------------------------


def test_a_restart_of_the_server_is_not_noticed(own_postgres: PostgresServer) -> None:
    store = PostgresKeyStore(own_postgres.tcp_url, "bot")
    fill(store)
    own_postgres.restart()
    assert store.key("person", 1) == b"wrapped"
    own_postgres.restart()
    with store.transaction():
        store.put_key("person", 2, b"wrapped", Micros(0))
    own_postgres.kill()
    with pytest.raises(LogUnavailable, match="cannot be"):
        store.key("person", 2)
    with pytest.raises(LogUnavailable, match="cannot be"), store.transaction():
        pytest.fail("there is no server")
    own_postgres.start()
    assert store.key("person", 2) == b"wrapped"  # what was answered is durable
    store.close()


def test_a_transaction_that_loses_its_server_half_way_leaves_nothing_behind(
    own_postgres: PostgresServer,
) -> None:
    store = PostgresKeyStore(own_postgres.tcp_url, "bot")

    def put() -> None:
        store.put_key("person", 1, b"wrapped", Micros(0))
        own_postgres.restart("immediate")
        store.put_key("person", 2, b"wrapped", Micros(0))

    with pytest.raises(LogUnavailable), store.transaction():
        put()
    assert not store.holds_people()
    store.close()


@pytest.fixture
def proxy(own_postgres: PostgresServer) -> Iterator[TcpProxy]:
    with TcpProxy(own_postgres.port) as proxy:
        yield proxy


def test_a_commit_whose_answer_was_lost_is_looked_for_and_found(
    own_postgres: PostgresServer, proxy: TcpProxy
) -> None:
    store = PostgresKeyStore(proxy.url(own_postgres.tcp_url), "bot")
    lost = proxy.cut_around(b"COMMIT;", "after")
    fill(store)
    assert lost.sprung.is_set()
    assert store.key("person", 1) == b"wrapped"
    lost = proxy.cut_around(b"COMMIT;", "after")
    store.erase("person")
    assert lost.sprung.is_set()
    assert store.key("person", 1) is None
    store.close()


def test_a_commit_that_never_reached_the_server_is_not_reported_as_done(
    own_postgres: PostgresServer, proxy: TcpProxy
) -> None:
    store = PostgresKeyStore(proxy.url(own_postgres.tcp_url), "bot")
    proxy.cut_around(b"COMMIT;", "before")
    with pytest.raises(LogUnavailable):
        store.put_key("person", 1, b"wrapped", Micros(0))
    assert store.key("person", 1) is None
    store.put_key("person", 1, b"wrapped", Micros(0))
    store.close()


def test_a_network_that_swallows_everything_ends_in_an_error_and_not_in_waiting(
    own_postgres: PostgresServer, proxy: TcpProxy
) -> None:
    store = PostgresKeyStore(proxy.url(own_postgres.tcp_url), "bot", waits=SHORT)
    fill(store)
    proxy.freeze()
    with pytest.raises(LogUnavailable):
        store.key("person", 1)
    proxy.resume()
    assert store.key("person", 1) == b"wrapped"
    store.close()


def test_a_process_that_is_stopped_in_a_transaction_does_not_keep_the_others_out(
    postgres_url: str,
) -> None:
    stopped = PostgresKeyStore(postgres_url, "bot", waits=SHORT)
    other = PostgresKeyStore(postgres_url, "bot")

    def put() -> None:
        other.put_key("person", 1, b"wrapped", Micros(0))  # waits until the server loses patience
        stopped.put_key("person", 2, b"wrapped", Micros(0))

    with pytest.raises(LogUnavailable), stopped.transaction():
        put()
    assert other.key("person", 2) is None
    with stopped.transaction():
        stopped.put_key("person", 2, b"wrapped", Micros(0))
    other.close()
    stopped.close()


def test_a_server_that_only_reads_refuses_to_write_and_answers_the_rest(
    own_postgres: PostgresServer,
) -> None:
    store = PostgresKeyStore(own_postgres.tcp_url, "bot")
    fill(store)
    own_postgres.execute("ALTER ROLE postgres SET default_transaction_read_only = on")
    store._link.drop()
    assert store.key("person", 1) == b"wrapped"
    with pytest.raises(LogUnavailable, match="read-only"):
        store.put_key("person", 2, b"wrapped", Micros(0))
    writable = f"{own_postgres.tcp_url}?options=-cdefault_transaction_read_only%3Doff"
    own_postgres.execute("ALTER ROLE postgres RESET default_transaction_read_only", writable)
    store.put_key("person", 2, b"wrapped", Micros(0))
    store.close()
