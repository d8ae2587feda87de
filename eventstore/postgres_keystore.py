"""The keyring's rows in PostgreSQL: a database of its own, one schema a bot, a role of its own.

Keys beside the log they open protect nothing, so the log's role cannot even connect to this
database, and the keyring's role can do what `KeyStore` needs and no more: no key is ever
changed, no secret ever deleted (`prepare`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg.sql import Identifier, Literal

from eventstore import sql
from eventstore.errors import KeyringError, LogUnavailable
from eventstore.keystore import Table
from eventstore.postgres_link import ConnectionLost, Link, Waits
from eventstore.types import Micros

_SCHEMA_VERSION: Final = 1
_GRANTS_VACUUM_SINCE: Final = 170_000
_WIPE_SECONDS: Final = 600.0
_WHAT: Final = "the keyring's database"
_NUMBER: Final = re.compile(r"\d+")


def prepare(owner_url: str, schema: str, role: str) -> None:
    """Make or complete a bot's schema, and let `role` use it and nobody else connect.

    To be run by the owner of the database. May be repeated. Raises `KeyringError` if the database
    stays open to others or a newer release made the schema, `LogUnavailable` if it cannot be
    reached.
    """
    link = Link(owner_url, waits=Waits(), what=_WHAT)
    try:
        with _understood():
            ((database, server),) = link.run(
                "SELECT current_database(), current_setting('server_version_num')::int"
            )
            statements = _statements(schema, database, role)
            _provide(link, statements)
            link.run(statements["grants"])
            if server >= _GRANTS_VACUUM_SINCE:
                link.run(statements["grant_vacuum"])
            ((open_to_all,),) = link.run(statements["select_open_to_all"])
        if open_to_all:
            msg = f"{database} is open to every role: prepare it as its owner, or as a superuser"
            raise KeyringError(msg)
    finally:
        link.close()


def holds_keyring(url: str, schema: str, *, waits: Waits | None = None) -> bool:
    """Tell whether a keyring was ever begun there; makes nothing. Raises `LogUnavailable`."""
    statements = _statements(schema)
    link = Link(url, waits=waits or Waits(), what=_WHAT)
    try:
        with _understood():
            if link.run(statements["select_schema"]) == [(None,)]:
                return False
            return bool(link.run(statements["select_secrets"]))
    finally:
        link.close()


class PostgresKeyStore:
    """A `KeyStore` that any number of processes on any number of machines may open at once.

    A commit is on the server's disk (and on its synchronous standbys') before it is answered.
    A connection that is lost is made again; if it was lost during COMMIT, what was written is
    looked for, behind the lock that the lost session held, so that the answer is final.
    """

    def __init__(self, url: str, schema: str, *, waits: Waits | None = None) -> None:
        """Connect, and make the schema if it is missing and the role may.

        Raises `KeyringError` if it is missing and the role may not, or if a newer release made
        it; `LogUnavailable` if the database cannot be used.
        """
        self._sql = _statements(schema)
        self._link = Link(url, waits=waits or Waits(), what=_WHAT)
        self._written: Callable[[], bool] | None = None
        try:
            with _understood():
                try:
                    _check_version(self._ask("select_version"))
                except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
                    self._make(schema)
        except BaseException:
            self._link.close()
            raise

    def _make(self, schema: str) -> None:
        try:
            _provide(self._link, self._sql)
        except psycopg.errors.InsufficientPrivilege as error:
            msg = (
                f"the keyring's schema {schema!r} is missing and this role may not make it: "
                "prepare it as the owner of the keyring's database"
            )
            raise KeyringError(msg) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Take the schema's lock before the first read, so that what was read still holds."""
        with _understood():
            try:
                _begin(self._link, self._sql)
            except ConnectionLost:  # since it was last used; nothing is lost with it now
                _begin(self._link, self._sql)
        self._written = None
        try:
            yield
            with _understood():
                self._commit()
        except BaseException:
            _roll_back(self._link)
            raise

    def _commit(self) -> None:
        written, self._written = self._written, None
        try:
            self._link.run(self._sql["commit"])
        except ConnectionLost:
            if written is None:
                return
            _begin(self._link, self._sql)  # waits for the lost session's end
            try:
                found = written()
            finally:
                _roll_back(self._link)
            if not found:
                raise

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Give what is written outside a transaction one of its own."""
        if self._link.in_transaction:
            yield
            return
        with self.transaction():
            yield

    def _write(self, name: str, values: Sequence[object], written: Callable[[], bool]) -> None:
        """Run a statement that changes rows; `written` tells, later, whether it was committed."""
        with self._writing(), _understood():
            self._ask(name, values)
            self._written = written

    def _ask(self, name: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self._link.run(self._sql[name], values)

    def _read(self, name: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Ask for rows; once more if the connection had been lost since it was last used."""
        with _understood():
            once_only = self._link.in_transaction
            try:
                return self._ask(name, values)
            except ConnectionLost:
                if once_only:
                    raise
                return self._ask(name, values)

    def secrets(self) -> dict[str, bytes]:
        """Return the wrapped secrets by name."""
        return dict(self._read("select_secrets"))

    def put_secret(self, name: str, wrapped: bytes) -> None:
        """Add a secret."""
        self._write("insert_secret", (name, wrapped), lambda: self.secrets().get(name) == wrapped)

    def holds_people(self) -> bool:
        """Tell whether there is any identity or key."""
        ((found,),) = self._read("select_holds_people")
        return bool(found)

    def pseudonym(self, handle_hmac: bytes) -> str | None:
        """Return whom a handle leads to."""
        rows = self._read("select_identity", (handle_hmac,))
        return str(rows[0][0]) if rows else None

    def boxes(self, pseudonym: str) -> list[tuple[bytes, bytes]]:
        """Return a person's handles as (hmac, box)."""
        return [(hmac, box) for hmac, box in self._read("select_boxes", (pseudonym,))]

    def put_identity(self, handle_hmac: bytes, pseudonym: str, box: bytes) -> None:
        """Add an identity, or replace whom it leads to."""
        self._write(
            "upsert_identity",
            (handle_hmac, pseudonym, box),
            lambda: self._read("select_identity", (handle_hmac,)) == [(pseudonym, box)],
        )

    def key(self, owner: str, generation: int) -> bytes | None:
        """Return a wrapped key; empty bytes if it has expired."""
        rows = self._read("select_key", (owner, generation))
        return bytes(rows[0][0]) if rows else None

    def put_key(self, owner: str, generation: int, wrapped: bytes, created_at: Micros) -> None:
        """Add a wrapped key."""
        self._write(
            "insert_key",
            (owner, generation, wrapped, created_at),
            lambda: self.key(owner, generation) == wrapped,
        )

    def generations(self, owner: str) -> list[int]:
        """Return the generations of which an owner has a key, oldest first."""
        return [generation for (generation,) in self._read("select_generations", (owner,))]

    def expire(self, owner: str, generation: int, at: Micros) -> None:
        """Delete one key of an owner, and remember that it was."""
        with self._writing():
            with _understood():
                self._ask("delete_key", (owner, generation))
            self.put_key(owner, generation, b"", at)
            self._count_destruction()

    def erase(self, owner: str) -> None:
        """Delete an owner's keys and identities."""
        with self._writing():
            with _understood():
                self._ask("delete_keys", (owner,))
                self._ask("delete_identities", (owner,))
            self._count_destruction()

    def _count_destruction(self) -> None:
        with _understood():
            ((counted,),) = self._ask("count_destruction")
        self._written = lambda: self.destructions() >= counted

    def destructions(self) -> int:
        """Return a number that changes whenever something is erased or expires."""
        ((counted, _),) = self._read("select_destructions")
        return int(counted)

    def wipe_due(self) -> bool:
        """Tell whether something was destroyed since the last `wipe` that reached its end."""
        ((counted, wiped),) = self._read("select_destructions")
        return bool(wiped < counted)

    def wipe(self) -> None:
        """Write the tables anew (VACUUM FULL), so that they hold no deleted row any more.

        Raises `KeyringError` if a transaction that is still open may see such a row, or if the
        role may not (before PostgreSQL 17 only a table's owner may; `prepare` grants it later).

        What PostgreSQL keeps outside the tables is out of reach from here: its write-ahead log
        until it is recycled, an archive of that, standbys until they have replayed this, base
        backups and dumps for as long as they are kept, and the freed blocks of the disk until
        something else is written there. All of it holds *wrapped* keys: destroy or rotate the
        key-encryption key to make them worthless at once.
        """
        destroyed = self.destructions()
        with _understood():
            remarks = self._link.run_slowly(self._sql["vacuum"], _WIPE_SECONDS)
        refused = [remark.text for remark in remarks if remark.severity == "WARNING"]
        if refused:
            msg = f"what was destroyed is still in the tables: {'; '.join(refused)}"
            raise KeyringError(msg)
        # "INFO: found … row versions", whose detail begins with how many of them had to stay
        stayed = [_NUMBER.search(remark.detail) for remark in remarks]
        if any(found is not None and int(found[0]) for found in stayed):
            msg = (
                "what was destroyed is still in the tables: a transaction that began before is "
                "still open (pg_stat_activity); end it and try again"
            )
            raise KeyringError(msg)
        self._write("mark_wiped", (destroyed,), lambda: not self.wipe_due())

    def rows(self, table: Table) -> list[tuple[Any, ...]]:
        """Return all rows of a table, in the order of its primary key."""
        return self._read(f"dump_{table}")

    def load(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Add rows of another store's table."""
        with self._writing(), _understood():
            self._link.copy(self._sql[f"load_{table}"], rows)
            self._written = lambda: self.rows(table) == list(rows)

    def close(self) -> None:
        """Let go of the connection. Idempotent."""
        self._link.close()


@contextmanager
def _understood() -> Iterator[None]:
    """Say of whatever the server refuses that the keyring, and so the log, cannot go on now."""
    try:
        yield
    except psycopg.Error as error:
        msg = f"{_WHAT} cannot be used now: {' '.join(str(error).split())}"
        raise LogUnavailable(msg) from error


def _begin(link: Link, statements: dict[str, str]) -> None:
    """Begin a transaction that keeps every other writer of the schema out."""
    try:
        link.run(statements["begin"])
    except BaseException:
        _roll_back(link)
        raise


def _roll_back(link: Link) -> None:
    """End a transaction, if one is open, without a trace; needs no answer for that."""
    try:
        if link.in_transaction:
            link.run("ROLLBACK")
    except (psycopg.Error, LogUnavailable):
        link.drop()


def _provide(link: Link, statements: dict[str, str]) -> None:
    """Make the schema unless it is there; whoever comes at the same time waits."""
    _begin(link, statements)
    try:
        if link.run(statements["select_schema"]) == [(None,)]:
            link.run(statements["schema"])
        else:
            _check_version(link.run(statements["select_version"]))
        link.run("COMMIT")
    finally:
        _roll_back(link)


def _check_version(rows: list[tuple[Any, ...]]) -> None:
    version = rows[0][0] if rows else 0
    if version > _SCHEMA_VERSION:
        msg = f"the keyring was made by a newer release (schema {version}): upgrade this node"
        raise KeyringError(msg)


def _statements(schema: str, database: str = "", role: str = "") -> dict[str, str]:
    """Return the statements for one schema; without database and role those but of grants."""
    quoted = Identifier(schema).as_string()
    names = {
        "/*schema*/": quoted,
        "/*name*/": Literal(schema).as_string(),
        "/*table*/": Literal(f"{quoted}.keyring").as_string(),
        "/*database*/": Identifier(database).as_string() if database else "",
        "/*role*/": Identifier(role).as_string() if role else "",
    }

    def filled(text: str) -> str:
        for name, value in names.items():
            text = text.replace(name, value)
        return text

    return {name: filled(text) for name, text in sql.load("postgres_keyring.sql").items()}
