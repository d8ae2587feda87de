"""What one bot has on this machine's disk, opened to be read: the log, the keyring, the views.

Whoever looks from beside the server (the command line, the worker) starts here. Opening for a look
never creates anything: what is not there yet is an error that says what to do.

    InstallationError
    ├── NothingHere          there is no bot in the data directory (yet)
    └── KeysUnavailable      the keyring, or the key-encryption key, is not here
"""

from __future__ import annotations

import re
import sqlite3
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from app import logs
from app.aggregates.events import USER_EVENTS
from app.aggregates.gateway_events import GATEWAY_EVENTS
from app.settings import Settings
from eventstore.codec import Codec, Event
from eventstore.errors import LogUnavailable
from eventstore.keyring import BOT, Handle, KeyEncryptionKey, Keyring
from eventstore.sealing import Sealer
from eventstore.sqlite import SQLiteLog, system_clock
from eventstore.types import StreamName

USER_PREFIX: Final = "user/"
EVENT_CLASSES: Final[tuple[type[Event], ...]] = (*USER_EVENTS, *GATEWAY_EVENTS)
"""Every class of event that this release knows, in whatever stream."""

_PSEUDONYM: Final = re.compile(r"[a-z2-7]{20}")
_BEGINNING: Final = re.compile(r"(?=.*[a-z])[a-z2-7]{6,19}")
"""Of a pseudonym. Never digits alone, which are a number."""
_NUMBER: Final = re.compile(r"\+?[\d\s().-]+")
_LID: Final = "@lid"


class InstallationError(Exception):
    """Something that was to be read is not on this machine."""


class NothingHere(InstallationError):
    """There is no bot in the data directory (yet)."""


class KeysUnavailable(InstallationError):
    """The keyring, or the key-encryption key that opens it, is not here."""


class UnknownPerson(InstallationError):
    """Nobody in this log is called so."""


class Installation:
    """One bot's files. A context manager; parts are opened when they are first asked for."""

    def __init__(self, settings: Settings) -> None:
        """Look, without opening anything. Raises `NothingHere`."""
        logs.configure(None)  # never structlog's own: it shows locals, texts included
        self.settings = settings
        self.codec = Codec(EVENT_CLASSES)
        self._look()

    @property
    def log_path(self) -> Path:
        """Where the log is."""
        return self.settings.bot_directory / "log.db"

    @property
    def views_path(self) -> Path:
        """Where the read models are; there may be none."""
        return self.settings.bot_directory / "views.db"

    @cached_property
    def log(self) -> SQLiteLog:
        """The log. Raises `NothingHere` or `LogUnavailable`."""
        if not _holds(self.log_path, "SELECT count(*) FROM sqlite_master WHERE name = 'head'"):
            msg = f"{self.log_path} is empty: start hilo serve, which makes the log"
            raise NothingHere(msg)
        return SQLiteLog(self.log_path)

    @cached_property
    def keyring(self) -> Keyring:
        """Identities and keys. Raises `KeysUnavailable` or `KeyringError`."""
        path = self.settings.bot_directory / "keys.db"
        if not path.exists() or not _holds(path, "PRAGMA user_version"):
            msg = f"there is no keyring at {path}: restore keys.db from its backup"
            raise KeysUnavailable(msg)
        return Keyring.open(path, self._key_encryption_key(), clock=system_clock)

    @cached_property
    def sealer(self) -> Sealer:
        """What opens sealed fields. Raises as `keyring` does."""
        return Sealer(self.keyring)

    def stream_of(self, person: str) -> StreamName:
        """Return the stream that is meant by a name of it, a pseudonym, a phone number or a lid.

        A pseudonym's first six or more letters are enough if nobody else's begin so. Phone
        numbers may be written with a +, spaces and dashes; a lid ends in `@lid`. Raises
        `UnknownPerson`; `KeysUnavailable` or `KeyringError` if only the keyring could tell.
        """
        for name in (person, f"{USER_PREFIX}{person}"):
            if self.log.stream_version(StreamName(name)):
                return StreamName(name)
        if _BEGINNING.fullmatch(person):
            begun = list(islice(self.log.streams(f"{USER_PREFIX}{person}"), 2))
            if len(begun) == 1:
                return begun[0].name
        handles = _handles(person)
        pseudonym = self.keyring.find(handles) if handles else None
        if pseudonym is None:
            msg = (
                f"nobody in this log is called {person!r}: give a pseudonym (hilo threads list), "
                "a phone number with its country code, or a lid (…@lid)"
            )
            raise UnknownPerson(msg)
        return StreamName(f"{USER_PREFIX}{pseudonym}")

    def close(self) -> None:
        """Close what was opened. Idempotent."""
        for part in ("keyring", "log"):
            opened = self.__dict__.pop(part, None)
            if opened is not None:
                opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _look(self) -> None:
        data, log = self.settings.data, self.log_path
        if not data.is_dir():
            msg = f"nothing here yet: {data} does not exist. Start hilo serve, or give --data"
            raise NothingHere(msg)
        if log.is_file():
            return
        bots = sorted(path.parent.name for path in data.glob("*/log.db"))
        known = f"; there is --bot {', '.join(bots)}" if bots else ""
        msg = (
            f"nothing here yet: {data} holds no log of the bot {self.settings.bot!r}{known}. "
            "Start hilo serve, or give --data or --bot"
        )
        raise NothingHere(msg)

    def _key_encryption_key(self) -> KeyEncryptionKey:
        given = self.settings.kek.get_secret_value()
        if given:
            return KeyEncryptionKey.from_base64(given)
        path = self.settings.data / "kek"
        if not path.is_file():
            msg = f"the key-encryption key is not at {path}: put it there, or set HILO_KEK"
            raise KeysUnavailable(msg)
        return KeyEncryptionKey.from_file(path)


def owner_of(stream: StreamName) -> str:
    """Return whose keys seal what is in a stream: a person's, or else the bot's."""
    return stream.removeprefix(USER_PREFIX) if stream.startswith(USER_PREFIX) else BOT


def _handles(person: str) -> tuple[Handle, ...]:
    name, _, server = person.strip().partition("@")
    if server and f"@{server}" == _LID:
        return (Handle("lid", name),)
    if _PSEUDONYM.fullmatch(name) or not _NUMBER.fullmatch(name):
        return ()
    digits = re.sub(r"\D", "", name)
    return (Handle("phone", digits), Handle("lid", digits)) if digits else ()


def _holds(path: Path, query: str) -> bool:
    """Ask a file that exists for one number, without ever creating it."""
    try:
        connection = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=rw", uri=True)
        try:
            return bool(connection.execute(query).fetchone()[0])
        finally:
            connection.close()
    except sqlite3.Error as error:
        msg = f"{path} cannot be read: {error}"
        raise LogUnavailable(msg) from error
