"""The schema of a log on PostgreSQL, and how it moves on while old nodes are up.

A migration is a file that is never edited once released. It only adds, and says (`-- oldest: N`)
which version of this program may still use the schema after it. Locks are asked for briefly and
again: a migration that waits for a lock makes everybody behind it wait, too.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, Final

import msgspec
import psycopg
from psycopg.sql import SQL, Identifier, Literal

from eventstore.errors import HalfCopied, LogUnavailable

_FILE: Final = re.compile(r"(\d{4})_(\w+)\.sql")
_OLDEST: Final = re.compile(r"-- oldest: (\d+)")
_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,47}")
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS migrations (
    version     integer PRIMARY KEY,
    name        text NOT NULL,
    oldest      integer NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT clock_timestamp()
)"""
_GRANTS: Final = """
GRANT USAGE ON SCHEMA {schema} TO {role};
REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {role};
GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role};
GRANT INSERT ON events, streams TO {role};
GRANT UPDATE (version) ON streams TO {role};
GRANT UPDATE (position, recorded_at) ON head TO {role};
GRANT INSERT, UPDATE, DELETE ON snapshots, nodes TO {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {role}
"""
_LOCK_SECONDS = 1.0
_PATIENCE_SECONDS = 60.0

_logger = logging.getLogger(__name__)
_Connection = psycopg.Connection[Any]


class Migration(msgspec.Struct, frozen=True):
    """One step of the schema. A program that knows `oldest` or later can use the result."""

    version: int
    name: str
    oldest: int
    sql: str


def _released() -> tuple[Migration, ...]:
    found = []
    for file in files("eventstore.sql.postgres").iterdir():
        named = _FILE.fullmatch(file.name)
        if named is None:
            continue
        text = file.read_text(encoding="utf-8")
        oldest = _OLDEST.match(text)
        if oldest is None:
            msg = f"{file.name} does not begin with `-- oldest: N`"
            raise ValueError(msg)
        found.append(Migration(int(named[1]), named[2], int(oldest[1]), text))
    return tuple(sorted(found, key=lambda migration: migration.version))


MIGRATIONS: Final = _released()


def check_name(schema: str) -> str:
    """Return the schema's name. Raises `ValueError` for one that could be misread."""
    if _SCHEMA.fullmatch(schema) is None or schema.startswith("pg_"):
        msg = f"{schema!r} cannot name a schema: use a-z, 0-9 and _, at most 48, not pg_…"
        raise ValueError(msg)
    return schema


def prepare(
    owner_url: str,
    schema: str,
    *,
    role: str | None = None,
    migrations: Sequence[Migration] = MIGRATIONS,
    patience: float = _PATIENCE_SECONDS,
) -> int:
    """Create the schema or bring it up to date, as its owner; return its version. Repeatable.

    `role`, the one that the program runs as, is granted what appending and reading needs and
    nothing else. Raises `LogUnavailable` if that cannot be done now, or not with this user.
    """
    check_name(schema)
    try:
        with psycopg.connect(owner_url, autocommit=True, application_name="hilo prepare") as owner:
            version = migrate(owner, schema, migrations=migrations, patience=patience)
            if role is not None:
                _again_and_again(lambda: _grant(owner, schema, role), patience)
            return version
    except psycopg.errors.UndefinedObject as error:
        msg = f"cannot prepare schema {schema}: {error}: create the role first"
        raise LogUnavailable(msg) from error
    except psycopg.Error as error:
        msg = f"cannot prepare schema {schema}: {error}"
        raise LogUnavailable(msg) from error


def migrate(
    owner: _Connection,
    schema: str,
    *,
    migrations: Sequence[Migration] = MIGRATIONS,
    patience: float = _PATIENCE_SECONDS,
) -> int:
    """Run what is pending, each migration in a transaction of its own; return the version."""
    version = 0
    for migration in migrations:
        _again_and_again(lambda m=migration: _run(owner, schema, m), patience)  # type: ignore[misc]
        version = migration.version
    return version


def open_schema(connection: _Connection, schema: str) -> None:
    """Create or upgrade the schema if need be and if this role may; see that we can use it.

    Raises `LogUnavailable` that says what to do if it is missing or too old, and not ours to make,
    or made for a later release.
    """
    known = MIGRATIONS[-1].version
    found = standing(connection, schema)
    if found is None or found[0] < known:
        try:
            found = migrate(connection, schema), 0
        except psycopg.errors.InsufficientPrivilege as error:
            is_ = "is missing" if found is None else f"is at version {found[0]}, not {known}"
            msg = (
                f"schema {schema} {is_} and this role may not change that: "
                "run `hilo store prepare` as its owner"
            )
            raise LogUnavailable(msg) from error
    version, oldest = found
    if oldest > known:
        msg = (
            f"schema {schema} is at version {version}, for programs that know version {oldest}; "
            f"this one knows {known}: upgrade this node"
        )
        raise LogUnavailable(msg)
    if half_copied(connection, schema):
        place = f"schema {schema}"
        raise HalfCopied(place)


def half_copied(connection: _Connection, schema: str) -> bool:
    """Tell whether the log is being copied here and is not complete yet (`migrate_postgres`)."""
    (found,) = connection.execute(
        "SELECT to_regclass(format('%%I.copying', %s::text)) IS NOT NULL", (schema,)
    ).fetchone() or (False,)
    return bool(found)


def standing(connection: _Connection, schema: str) -> tuple[int, int] | None:
    """Return the schema's version and the oldest program that may use it; None if there is none."""
    exists = connection.execute(
        "SELECT to_regclass(format('%%I.migrations', %s::text)) IS NOT NULL", (schema,)
    ).fetchone()
    if not exists or not exists[0]:
        return None
    row = connection.execute(
        SQL("SELECT max(version), max(oldest) FROM {}").format(Identifier(schema, "migrations"))
    ).fetchone()
    return None if row is None or row[0] is None else (row[0], row[1])


def _again_and_again(step: Callable[[], None], patience: float) -> None:
    """Repeat a step that asks for locks briefly, so that it never makes others wait for long."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return step()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            if time.monotonic() > deadline:
                raise
            _logger.warning("MIGRATION_WAITS reason=%s", error)
            time.sleep(0.1)


def _run(owner: _Connection, schema: str, migration: Migration) -> None:
    with owner.transaction():
        _begin(owner, schema)
        if not owner.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone():
            owner.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
        owner.execute(_TABLES)
        done = owner.execute(
            "SELECT 1 FROM migrations WHERE version = %s", (migration.version,)
        ).fetchone()
        if done:
            return
        owner.execute(migration.sql.encode())
        owner.execute(
            "INSERT INTO migrations (version, name, oldest) VALUES (%s, %s, %s)",
            (migration.version, migration.name, migration.oldest),
        )


def _grant(owner: _Connection, schema: str, role: str) -> None:
    with owner.transaction():
        _begin(owner, schema)
        owner.execute(SQL(_GRANTS).format(schema=Identifier(schema), role=Identifier(role)))


def _begin(owner: _Connection, schema: str) -> None:
    """Take the one lock that keeps two migrations of a schema apart, for this transaction."""
    settings = "SET LOCAL lock_timeout = {}; SET LOCAL search_path = {}"
    milliseconds = Literal(f"{_LOCK_SECONDS * 1000:.0f}")
    owner.execute(SQL(settings).format(milliseconds, Identifier(schema)))
    owner.execute("SELECT pg_advisory_xact_lock(hashtextextended('hilo/' || %s, 0))", (schema,))
