"""Where a bot's log and keys are kept, decided by the settings: SQLite files, or PostgreSQL.

Everything that opens a log or a keyring comes here, and sees no more than the ports
(`eventstore.store`). Looking whether something is there never makes it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec
import psycopg

from app.addresses import without_secrets
from app.settings import Settings, SettingsError
from eventstore.errors import HalfCopied, KeyEncryptionKeyError, KeyringError, LogUnavailable
from eventstore.keyring import KeyEncryptionKey, Keyring
from eventstore.keystore import KeyStore, SqliteKeyStore
from eventstore.migrate_sqlite import copying_path
from eventstore.postgres import PostgresLog
from eventstore.postgres_connections import PostgresSettings, Server
from eventstore.postgres_keystore import PostgresKeyStore, holds_keyring
from eventstore.postgres_link import Waits
from eventstore.postgres_schema import standing
from eventstore.sqlite import SQLiteLog, system_clock
from eventstore.sqlite_place import SQLiteWriter
from eventstore.store import LogStore
from eventstore.writer import LogWriter, Writer
from eventstore.writer_process import ProcessWriter

KEYS_IN_MEMORY: Final = 20_000
IDENTITIES_IN_MEMORY: Final = 2 * KEYS_IN_MEMORY
"""A phone number and a lid of each whose key is there: 19 MB for both maps, when they are full."""
CONTROL_SCHEMA: Final = "control"


# -- the log ---------------------------------------------------------------------------------------


def open_log(settings: Settings, *, server: bool = False) -> LogStore:
    """Open the bot's log, or make it; `server` says that this process looks after its file.

    Raises `LogUnavailable` if it cannot be reached or used.
    """
    return _opened(settings, _log_file(settings), settings.schema_name, server=server)


def open_writer(settings: Settings, log: LogStore) -> LogWriter:
    """Return what feeds appends to a log that was opened with `server=True`."""
    if isinstance(log, SQLiteLog):
        writer = ProcessWriter if settings.log_writer == "process" else SQLiteWriter
        return writer(log, capacity=settings.queue)
    return Writer(log, capacity=settings.queue)


def has_log(settings: Settings) -> bool:
    """Tell whether the bot has a log, empty or not. Raises `LogUnavailable` if nobody can tell."""
    return _is_there(settings, _log_file(settings), settings.schema_name)


def log_place(settings: Settings) -> str:
    """Say where the log is, for people: a path, or an address without what opens it."""
    return _place(settings, settings.database_url.get_secret_value(), _log_file(settings))


def wal_bytes(settings: Settings) -> int:
    """Return the bytes of the log's write-ahead log, beside its pages; 0 where it has none."""
    wal = _log_file(settings).with_name("log.db-wal")
    return wal.stat().st_size if not settings.on_postgres and wal.exists() else 0


# -- the control log -------------------------------------------------------------------------------


def open_control_log(settings: Settings) -> LogStore:
    """Open the installation's control log, or make it. Raises as `open_log` does."""
    return _opened(settings, control_file(settings), CONTROL_SCHEMA, server=False)


def has_control_log(settings: Settings) -> bool:
    """Tell whether there is a control log. Raises `LogUnavailable` if nobody can tell."""
    return _is_there(settings, control_file(settings), CONTROL_SCHEMA)


def control_place(settings: Settings) -> str:
    """Say where the control log is, for people."""
    if not settings.on_postgres:
        return str(control_file(settings))
    return f"{without_secrets(settings.database_url.get_secret_value())} schema {CONTROL_SCHEMA}"


def control_file(settings: Settings) -> Path:
    """Return where the control log is, unless it is in PostgreSQL."""
    return settings.data / "control.db"


# -- the keys --------------------------------------------------------------------------------------


def open_keyring(settings: Settings) -> Keyring:
    """Open the bot's keyring with the key that the settings, or DATA/kek, hold.

    A keyring is made if there is none, and the file DATA/kek with it: see `has_keyring`. Raises
    `KeyringError`, `KeyEncryptionKeyError` if the key is not here or another one made the keyring,
    or `LogUnavailable`.
    """
    store = open_key_store(settings)
    try:
        kek = _key_encryption_key(settings, store)
        return Keyring(
            store,
            kek,
            clock=system_clock,
            identities=IDENTITIES_IN_MEMORY,
            keys=KEYS_IN_MEMORY,
        )
    except BaseException:
        store.close()
        raise


def open_key_store(settings: Settings) -> KeyStore:
    """Open what the keyring keeps its rows in; make it if it is not there. As `open_keyring`."""
    if not settings.on_postgres:
        return SqliteKeyStore(_keys_file(settings))
    url = settings.keys_database_url.get_secret_value()
    return PostgresKeyStore(url, settings.schema_name, waits=_waits(settings))


def has_keyring(settings: Settings) -> bool:
    """Tell whether the bot has a keyring. Raises `LogUnavailable` if nobody can tell."""
    if not settings.on_postgres:
        return _file_holds(_keys_file(settings), "PRAGMA user_version")
    url = settings.keys_database_url.get_secret_value()
    return holds_keyring(url, settings.schema_name, waits=_waits(settings))


def keys_place(settings: Settings) -> str:
    """Say where the keyring is, for people."""
    return _place(settings, settings.keys_database_url.get_secret_value(), _keys_file(settings))


def has_kek(settings: Settings) -> bool:
    """Tell whether the key-encryption key is here."""
    return bool(settings.kek.get_secret_value()) or kek_file(settings).is_file()


def refuse_what_is_no_kek(settings: Settings) -> None:
    """Refuse a key-encryption key that none can be, before anything is made for it to open.

    Raises `SettingsError` if the settings hold it, `KeyEncryptionKeyError` if its file does.
    """
    given = settings.kek.get_secret_value()
    try:
        if given:
            KeyEncryptionKey.from_base64(given)
            return
    except KeyEncryptionKeyError as error:
        msg = f"HILO_KEK: {error}"
        raise SettingsError(msg) from None  # the cause would quote the key
    if kek_file(settings).exists():
        KeyEncryptionKey.from_file(kek_file(settings))


def kek_file(settings: Settings) -> Path:
    """Return where the key-encryption key is unless the settings hold it."""
    return settings.data / "kek"


def refuse_to_lose_keys(settings: Settings, log: LogStore) -> None:
    """Raise `KeyringError` if there is a log but not the keys that belong to it.

    A new keyring would have new secrets: what was delivered before would no longer be known, and
    be answered again, and nothing that people wrote could be read.
    """
    if log.head().position > 0 and not has_keyring(settings):
        keys, needy = keys_place(settings), log_place(settings)
        msg = f"{keys} is missing, and {needy} needs it: restore it from its backup first"
        raise KeyringError(msg)


def refuse_to_begin_anew(settings: Settings) -> None:
    """Raise `LogUnavailable` if the log's file is gone, but the keys that belong to it are here.

    An empty log in its place would answer everything as if nothing had ever happened.
    """
    if settings.on_postgres or has_log(settings) or not has_keyring(settings):
        return
    with closing(open_key_store(settings)) as keys:
        used = keys.holds_people()
    if used:
        msg = (
            f"{log_place(settings)} is missing, but its keys are here, in {keys_place(settings)}: "
            "restore the log from its backup, or put the keys away, too, to begin anew"
        )
        raise LogUnavailable(msg)


def _key_encryption_key(settings: Settings, store: KeyStore) -> KeyEncryptionKey:
    """Return the key of the settings or of DATA/kek, which is made for a new keyring only."""
    given = settings.kek.get_secret_value()
    if given:
        return KeyEncryptionKey.from_base64(given)
    path = kek_file(settings)
    if not path.is_file() and store.secrets():
        msg = (
            f"{path} is missing, and {keys_place(settings)} was made with it: put its backup "
            "there, or set HILO_KEK"
        )
        raise KeyEncryptionKeyError(msg)
    return KeyEncryptionKey.from_file(path)


def _waits(settings: Settings) -> Waits:
    return Waits(
        connect=settings.database_connect_seconds,
        lock=settings.database_lock_seconds,
        statement=settings.database_statement_seconds,
    )


# -- where -----------------------------------------------------------------------------------------


def _opened(settings: Settings, path: Path, schema: str, *, server: bool) -> LogStore:
    if not settings.on_postgres:
        _refuse_half_copied(path)
        ours = server and settings.log_writer == "thread"
        return SQLiteLog(path, clock=system_clock, server=ours)
    url = settings.database_url.get_secret_value()
    return PostgresLog(
        url, schema=schema, settings=_postgres(settings, server=server), server=server
    )


def _refuse_half_copied(path: Path) -> None:
    """Raise `HalfCopied` for a file; a schema says so itself when it is opened."""
    if copying_path(path).exists():
        place = str(path)
        raise HalfCopied(place)


def _is_there(settings: Settings, path: Path, schema: str) -> bool:
    if not settings.on_postgres:
        _refuse_half_copied(path)
        return _file_holds(path, "SELECT count(*) FROM sqlite_master WHERE name = 'head'")
    where = Server(settings.database_url.get_secret_value(), schema, _postgres(settings))
    try:
        with where.connect(read_only=True) as connection:
            return standing(connection, schema) is not None
    except psycopg.Error as error:
        msg = f"cannot look for the log: {where.why(error)}"
        raise LogUnavailable(msg) from error


def _postgres(settings: Settings, *, server: bool = False) -> PostgresSettings:
    waits = PostgresSettings(
        pool_size=settings.database_pool,
        connect_timeout=settings.database_connect_seconds,
        lock_timeout=settings.database_lock_seconds,
        statement_timeout=settings.database_statement_seconds,
    )
    if not server:
        return waits
    # A server reads little at a time, and its heartbeat is among it: where a network has forgotten
    # a connection without a word, it must not wait as long for an answer as a report may.
    hasty = min(waits.read_timeout, waits.statement_timeout)
    return msgspec.structs.replace(waits, read_timeout=hasty)


def _log_file(settings: Settings) -> Path:
    return settings.bot_directory / "log.db"


def _keys_file(settings: Settings) -> Path:
    return settings.bot_directory / "keys.db"


def _place(settings: Settings, url: str, path: Path) -> str:
    if not settings.on_postgres:
        return str(path)
    return f"{without_secrets(url)} schema {settings.schema_name}"


def _file_holds(path: Path, query: str) -> bool:
    """Ask a file for one number, without ever creating it; False if there is no file."""
    if not path.is_file():
        return False
    try:
        connection = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=rw", uri=True)
        try:
            return bool(connection.execute(query).fetchone()[0])
        finally:
            connection.close()
    except sqlite3.Error as error:
        msg = f"{path} cannot be read: {error}"
        raise LogUnavailable(msg) from error
