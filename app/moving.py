"""Moving a bot's log and keys, or the control log: what is opened, and what is locked.

The copying itself is `eventstore.migrate`'s. A directory is locked as `hilo serve` locks it; in
PostgreSQL the log's head is, and nodes that beat are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from app.addresses import without_secrets
from app.lock import exclusive, exclusive_directory
from app.settings import Settings, SettingsError
from app.stores import CONTROL_SCHEMA
from eventstore.errors import CopyFailed, LogUnavailable
from eventstore.keystore import KeyStore, SqliteKeyStore
from eventstore.migrate import Moved, Say, Source, Target, move
from eventstore.migrate_keys import (
    KeySource,
    SqliteKeySource,
    move_keys,
    refuse_another_keyring,
)
from eventstore.migrate_postgres import PostgresSource, PostgresTarget
from eventstore.migrate_sqlite import SqliteSource, SqliteTarget
from eventstore.postgres_keystore import PostgresKeyStore, holds_keyring

_SQLITE: Final = "sqlite:"
_POSTGRES: Final = ("postgresql://", "postgres://")
_FROM_SETTINGS: Final = "postgres"


class Place:
    """Where one bot's log and keys are, or will be."""

    def __init__(self, given: str, keys_url: str | None, settings: Settings) -> None:
        """Understand `sqlite:DIR`, a URL, or `postgres`: what the settings name.

        `keys_url` is where the keys are, if the log is in PostgreSQL; None: as the settings say.
        Raises `SettingsError`.
        """
        self.settings = settings
        self.directory: Path | None = None
        self.url = self.keys_url = ""
        if given.startswith(_SQLITE):
            self.directory = self._directory(Path(given.removeprefix(_SQLITE) or settings.data))
            return
        if given == _FROM_SETTINGS:
            owner, program = settings.owner_database_url, settings.database_url
            given = owner.get_secret_value() or program.get_secret_value()
        if not given.startswith(_POSTGRES):
            msg = (
                "a log is in sqlite:DIR (a data directory), in postgresql://… or, if "
                "HILO_DATABASE_URL is set, in postgres"
            )
            raise SettingsError(msg)
        self.url = given
        self.keys_url = keys_url or settings.keys_database_url.get_secret_value()
        self._check_keys()

    def _directory(self, data: Path) -> Path:
        return data / self.settings.bot

    def _check_keys(self) -> None:
        if not self.keys_url:
            msg = (
                "the keys need a database of their own: set HILO_KEYS_DATABASE_URL, or give "
                "--keys-from or --keys-to"
            )
            raise SettingsError(msg)

    @property
    def file(self) -> Path | None:
        """The file of the log; None if it is in PostgreSQL."""
        return None if self.directory is None else self.directory / "log.db"

    @property
    def schema(self) -> str:
        """The schema of the log, if it is in PostgreSQL."""
        return self.settings.schema_name

    @property
    def lasting(self) -> str:
        """The place as it is put on record: meant alike from every working directory."""
        return str(self if self.file is None else self.file.resolve())

    @property
    def installation(self) -> Settings:
        """Settings of an installation whose control log is beside this log."""
        changed: dict[str, object] = {"database_url": SecretStr(self.url)}
        if self.directory is not None:
            changed["data"] = self.directory.parent
        return self.settings.model_copy(update=changed)

    def __str__(self) -> str:
        if self.file is not None:
            return str(self.file)
        return f"{without_secrets(self.url)} schema {self.schema}"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every server out of a directory. A database does so by itself, when opened.

        Raises `StoreLocked`.
        """
        if self.directory is None:
            yield
            return
        with exclusive_directory(self.directory, f"the bot's directory {self.directory}"):
            yield

    def check(self) -> None:
        """Raise `LogUnavailable` if a log should be here and is not; nothing is made."""
        if self.file is not None and not self.file.is_file():
            msg = f"there is no log in {self}: give the data directory, and --bot"
            raise LogUnavailable(msg)

    def source(self) -> Source:
        """Open the log to be read. Raises `LogUnavailable`, `StoreLocked` if it is served."""
        if self.file is not None:
            return SqliteSource(self.file)
        return PostgresSource(self.url, self.schema, dead_seconds=self.settings.dead_seconds)

    def target(self) -> Target:
        """Open the log that is to be made. Raises as `source`, and `CopyFailed`."""
        if self.file is not None:
            return SqliteTarget(self.file)
        return PostgresTarget(self.url, self.schema, dead_seconds=self.settings.dead_seconds)

    def move_keys(self, goal: Place) -> int:
        """Copy the keyring that belongs to the log; return how many rows it has. See `move_keys`.

        Raises `CopyFailed`, `CopyDiffers`, `LogUnavailable`, `KeyringError`.
        """
        with closing(self.key_source()) as held, closing(goal.key_target()) as wanted:
            return move_keys(held, wanted)

    def refuse_other_keys(self, goal: Place) -> None:
        """Raise `CopyFailed` if the goal has a keyring of something else, before it is marked."""
        with closing(self.key_source()) as held, closing(goal.key_target()) as wanted:
            refuse_another_keyring(held, wanted)

    def key_source(self) -> KeySource:
        """Open the keyring to be read. Raises `LogUnavailable`, `CopyFailed` if there is none."""
        if self.directory is not None:
            return SqliteKeySource(self.directory / "keys.db")
        if not holds_keyring(self.keys_url, self.settings.schema_name):
            msg = f"there is no keyring in {without_secrets(self.keys_url)}: name the right one"
            raise CopyFailed(msg)
        return PostgresKeyStore(self.keys_url, self.settings.schema_name)

    def key_target(self) -> KeyStore:
        """Open or make the keyring to be written. Raises `LogUnavailable`, `KeyringError`."""
        if self.directory is not None:
            return SqliteKeyStore(self.directory / "keys.db")
        return PostgresKeyStore(self.keys_url, self.settings.schema_name)

    def switch(self) -> dict[str, str]:
        """Return the settings that make `hilo serve` use this place; "": not set."""
        bot = {"HILO_BOT": self.settings.bot}
        if self.directory is not None:
            here = str(self.directory.parent)
            return bot | {"HILO_DATA": here, "HILO_DATABASE_URL": "", "HILO_KEYS_DATABASE_URL": ""}
        return bot | {
            "HILO_DATABASE_URL": without_secrets(self.url),
            "HILO_KEYS_DATABASE_URL": without_secrets(self.keys_url),
        }


class ControlPlace(Place):
    """Where the control log of an installation is, or will be. It has no keys."""

    def _directory(self, data: Path) -> Path:
        return data

    def _check_keys(self) -> None:
        """Say nothing: nothing in it is sealed."""

    @property
    def file(self) -> Path | None:
        """The file of the log; None if it is in PostgreSQL."""
        return None if self.directory is None else self.directory / "control.db"

    @property
    def schema(self) -> str:
        """The schema of the log, if it is in PostgreSQL."""
        return CONTROL_SCHEMA

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every server out of a data directory. Raises `StoreLocked`."""
        if self.directory is None:
            yield
            return
        with exclusive(self.directory / "serve.lock", f"the data directory {self.directory}"):
            yield

    def refuse_other_keys(self, goal: Place) -> None:
        """Say nothing: there are none."""

    def move_keys(self, goal: Place) -> int:
        """Do nothing."""
        del goal
        return 0

    @property
    def installation(self) -> Settings:
        """Settings of an installation that has this control log."""
        changed: dict[str, object] = {"database_url": SecretStr(self.url)}
        if self.directory is not None:
            changed["data"] = self.directory
        return self.settings.model_copy(update=changed)

    def switch(self) -> dict[str, str]:
        """Return nothing: what makes the bots use this place makes their control log do so."""
        return {}


def move_house(
    origin: Place, goal: Place, say: Say, *, record: Callable[[], object]
) -> tuple[Moved, int]:
    """Copy log and keys, compare, and make the goal usable; return also how many rows of keys.

    `record` is called before the goal can be used: nobody moves into what nobody recorded. Raises
    `StoreLocked`, `LogUnavailable`, `KeyringError`, `CopyFailed`, `CopyDiffers`.
    """
    origin.check()
    counts: list[int] = []

    def keys_too() -> None:
        counts.append(origin.move_keys(goal))
        record()

    with ExitStack() as stack:
        stack.enter_context(origin.alone())
        stack.enter_context(goal.alone())
        held = stack.enter_context(closing(origin.source()))
        origin.refuse_other_keys(goal)
        wanted = stack.enter_context(closing(goal.target()))
        return move(held, wanted, say, before_use=keys_too), counts[0]
