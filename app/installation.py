"""What one bot has on this machine's disk, opened to be read: the log, the keyring, the views.

Whoever looks from beside the server (the command line, the worker) starts here. Opening for a look
never creates anything: what is not there yet is an error that says what to do.

    InstallationError
    ├── NothingHere          there is no bot in the data directory (yet)
    └── KeysUnavailable      the keyring, or the key-encryption key, is not here
"""

from __future__ import annotations

import re
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Final, Self

from app import logs, stores
from app.aggregates.catalogue import EVENT_CLASSES
from app.settings import Settings
from eventstore.codec import Codec
from eventstore.keyring import Handle, Keyring
from eventstore.sealing import Sealer
from eventstore.store import LogStore
from eventstore.types import PSEUDONYM, StreamName

USER_PREFIX: Final = "user/"
_PSEUDONYM: Final = re.compile(PSEUDONYM)
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
    def log_place(self) -> str:
        """Where the log is, for people."""
        return stores.log_place(self.settings)

    @property
    def views_path(self) -> Path:
        """Where the read models are; there may be none."""
        return self.settings.bot_directory / "views.db"

    @cached_property
    def log(self) -> LogStore:
        """The log. Raises `NothingHere` or `LogUnavailable`."""
        if not stores.has_log(self.settings):
            msg = f"{self.log_place} holds no log: start hilo serve, which makes it"
            raise NothingHere(msg)
        return stores.open_log(self.settings)

    @cached_property
    def keyring(self) -> Keyring:
        """Identities and keys. Raises `KeysUnavailable` or `KeyringError`."""
        settings = self.settings
        if not stores.has_keyring(settings):
            msg = f"there is no keyring at {stores.keys_place(settings)}: restore its backup"
            raise KeysUnavailable(msg)
        if not stores.has_kek(settings):
            path = stores.kek_file(settings)
            msg = f"the key-encryption key is not at {path}: put it there, or set HILO_KEK"
            raise KeysUnavailable(msg)
        return stores.open_keyring(settings)

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
        handles = handles_named(person)
        pseudonym = self.keyring.find(handles) if handles else None
        if pseudonym is None:
            msg = (
                f"nobody in this log is called {person!r}: give a pseudonym (hilo users list) or "
                "its first six letters or more, a phone number with its country code, or a lid "
                "(…@lid)"
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

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look(self) -> None:
        data = self.settings.data
        if self.settings.on_postgres:
            return  # asked when the log is opened
        if not data.is_dir():
            msg = f"nothing here yet: {data} does not exist. Start hilo serve, or give --data"
            raise NothingHere(msg)
        if stores.has_log(self.settings) or (self.settings.bot_directory / "log.db").is_file():
            return
        bots = sorted(path.parent.name for path in data.glob("*/log.db"))
        known = f"; there is --bot {', '.join(bots)}" if bots else ""
        msg = (
            f"nothing here yet: {data} holds no log of the bot {self.settings.bot!r}{known}. "
            "Start hilo serve, or give --data or --bot"
        )
        raise NothingHere(msg)


def handles_named(person: str) -> tuple[Handle, ...]:
    """Return what a phone number, a lid or a chat's id may lead to; nothing for a pseudonym."""
    name, _, server = person.strip().partition("@")
    if server and f"@{server}" == _LID:
        return (Handle("lid", name),)
    if _PSEUDONYM.fullmatch(name) or not _NUMBER.fullmatch(name):
        return ()
    digits = re.sub(r"\D", "", name)
    return (Handle("phone", digits), Handle("lid", digits)) if digits else ()
