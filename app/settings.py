"""Every setting of the program, its default, and where its value came from.

Values come from `HILO_…` environment variables, then from a `.env` file in the working
directory, then from the defaults below. `OPENAI_API_KEY`, `OPENAI_BASE_URL`, `WHAPI_TOKEN` and
`WHAPI_BASE_URL` keep the names that their vendors gave them. Durations are seconds.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    SettingsConfigDict,
)

from app.addresses import database_of

PREFIX: Final = "HILO_"
"""Of every setting's environment variable but those that have a vendor's name."""

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""What a bot may be called."""

NAME_RULE: Final = (
    "a bot is called by lower case letters, digits, - and _, beginning with neither of the last two"
)
"""The same, for people."""

_MIB = 1024 * 1024
_DEFAULT_BOT: Final = "default"
_POSTGRES: Final = ("postgresql://", "postgres://")
_SCHEMA_PREFIX: Final = "bot_"
_IN_POSTGRES: Final = re.compile(r"[a-z0-9_]{1,44}")


class SettingsError(Exception):
    """A setting has a value that cannot be used; the message names it and says what is allowed."""


class Settings(BaseSettings):
    """The configuration of one installation. Immutable once read."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True, populate_by_name=True
    )

    # -- where things are --------------------------------------------------------------------
    data: Path = Field(Path("data"), description="directory of the logs, keys and views")
    logs: Path | None = Field(None, description="directory of technical.log; default: DATA/logs")
    tmp: Path = Field(
        Path("tmp"), description="directory of threads.json; of bots but the default one: TMP/BOT"
    )
    bot: str = Field(
        _DEFAULT_BOT,
        description="name of the bot: its log is DATA/BOT/log.db",
    )
    bots: str = Field(
        "", description="file of the bots, if there are several; default: DATA/bots.toml, if any"
    )
    node: str = Field(
        "", description="name of this node; default: the machine's name and the data directory"
    )
    timezone: str = Field(
        "UTC", description="time zone of daily jobs, such as Europe/Madrid; the same on all nodes"
    )
    kek: SecretStr = Field(
        SecretStr(""), description="key-encryption key, base64; default: the file DATA/kek"
    )

    # -- PostgreSQL, instead of files ----------------------------------------------------------
    database_url: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("HILO_DATABASE_URL", "DATABASE_URL", "database_url"),
        description="PostgreSQL that holds the log (postgresql://…), also as DATABASE_URL; "
        "empty: SQLite in DATA/BOT",
    )
    keys_database_url: SecretStr = Field(
        SecretStr(""),
        description="PostgreSQL database that holds the keys, another one than the log's",
    )
    owner_database_url: SecretStr = Field(
        SecretStr(""),
        description="the log's database as its owner, for hilo store prepare alone",
    )
    owner_keys_database_url: SecretStr = Field(
        SecretStr(""),
        description="the keys' database as its owner; default: the log's owner, if on one server",
    )
    database_pool: int = Field(4, ge=1, description="connections that read a bot's log")
    database_connect_seconds: float = Field(5.0, gt=0, description="time-out of connecting")
    database_statement_seconds: float = Field(
        10.0, gt=0, description="time-out of a statement; a server silent 2 s longer is given up"
    )
    database_lock_seconds: float = Field(5.0, gt=0, description="longest wait for a lock")

    # -- the door ------------------------------------------------------------------------------
    host: str = Field("127.0.0.1", description="address that hilo serve binds")
    port: int = Field(3010, ge=0, le=65535, description="port of hilo serve; 0: a free one")
    webhook_header: str = Field("x-hilo-secret", description="header of the shared secret")
    webhook_secret: SecretStr = Field(
        SecretStr(""), description="shared secret of the webhooks; needed unless on loopback"
    )
    channel: str = Field("", description="Whapi channel id of the bot; empty: any channel")
    max_body: int = Field(_MIB, ge=1024, description="largest webhook body, bytes")
    head_seconds: float = Field(10.0, gt=0, description="longest time a request's head may take")
    body_seconds: float = Field(30.0, gt=0, description="longest time a request's body may take")
    connections: int = Field(
        4096, ge=1, description="connections at once; beyond, those who keep silent make room"
    )
    key_rate: float = Field(50.0, ge=0, description="API requests a second of one key; 0: any")
    key_burst: int = Field(200, ge=1, description="API requests of one key that may come at once")
    queue: int = Field(10_000, ge=1, description="appends that may wait; then 503")
    webhook_seconds: float = Field(
        3.0, gt=0, description="longest wait of a webhook for the log; then 503 with Retry-After"
    )
    log_writer: Literal["process", "thread"] = Field(
        "process",
        description="what writes a log in SQLite: a process of its own for each bot (about 30 MB), "
        "or a thread of the server (two thirds of the traffic)",
    )
    read_models: Literal["process", "thread"] = Field(
        "process",
        description="what keeps the read models of a log in SQLite current: a process of its own "
        "for each bot (about 70 MB), or a thread of the server (three quarters of the traffic)",
    )

    # -- for those who still read files ---------------------------------------------------------
    thread_files: bool = Field(
        default=False,
        description="keep TMP/threads.json and its .backup: names and phone numbers in clear",
    )
    thread_files_seconds: float = Field(
        60.0, gt=0, description="shortest time between two writings of threads.json"
    )

    # -- the turn ------------------------------------------------------------------------------
    quiet_seconds: float = Field(5.0, ge=0, description="silence that ends a burst")
    longest_seconds: float = Field(30.0, ge=0, description="longest wait after the first message")
    most_messages: int = Field(50, ge=1, description="messages that make a turn due at once")
    runs_at_once: int = Field(
        75, ge=1, description="runs at once on this node, shared by its bots; of a bot: at most"
    )
    attempts: int = Field(3, ge=1, description="attempts of a turn before it is parked")
    run_seconds: float = Field(45.0, gt=0, description="time-out of one run")
    send_seconds: float = Field(10.0, gt=0, description="time-out of one send")
    delivery_margin_seconds: float = Field(
        5.0, ge=0, description="how long after a send's deadline a successor looks for it"
    )
    busy_seconds: float = Field(60.0, ge=0, description="longest wait for a busy conversation")
    thread_days: float = Field(90.0, gt=0, description="age at which a thread is renewed")
    orphan_start_seconds: float = Field(5.0, ge=0, description="first look for orphaned runs")
    orphan_every_seconds: float = Field(15.0, gt=0, description="later looks for orphaned runs")
    beat_seconds: float = Field(2.0, gt=0, description="heartbeat of a node")
    dead_seconds: float = Field(10.0, gt=0, description="silence after which a node is dead")
    resend_uncertain: bool = Field(
        default=False, description="send again a part of which nobody can say whether it was sent"
    )
    apology: str = Field(
        "Perdón, ahora mismo no puedo responder. Por favor, escríbenos de nuevo en unos minutos.",
        description="what is said, once, when a turn is given up",
    )
    activity_seconds: float = Field(
        600.0, ge=0, description="silence after which last activity and token count are recorded"
    )
    user_cache: int = Field(10_000, ge=1, description="users kept in memory")
    client_cache: int = Field(1000, ge=1, description="clients kept in memory")
    client_cache_hours: float = Field(
        12.0, gt=0, description="hours after which a client in memory is read again"
    )

    # -- OpenAI ----------------------------------------------------------------------------------
    openai_api_key: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("OPENAI_API_KEY", "openai_api_key"),
        description="key of OpenAI; without it, and without an address, OpenAI is simulated",
    )
    openai_base_url: str = Field(
        "",
        validation_alias=AliasChoices("OPENAI_BASE_URL", "openai_base_url"),
        description="address of OpenAI, instead of the real one",
    )
    model: str = Field("gpt-5-mini", description="model of the answers")
    instructions: str = Field(
        "Eres un asistente amable que responde por WhatsApp, en pocas palabras.",
        description="instructions of the assistant",
    )
    openai_mode: Literal["background", "stream"] = Field(
        "background", description="background runs survive a crash and can be cancelled"
    )

    # -- Whapi -----------------------------------------------------------------------------------
    whapi_token: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("WHAPI_TOKEN", "whapi_token"),
        description="token of the channel; without it, and without an address, Whapi is simulated",
    )
    whapi_base_url: str = Field(
        "",
        validation_alias=AliasChoices("WHAPI_BASE_URL", "whapi_base_url"),
        description="address of Whapi, instead of the real one",
    )

    echo_to_real_people: bool = Field(
        default=False, description="allow real WhatsApp with a simulated OpenAI, which echoes"
    )

    # -- for tests -------------------------------------------------------------------------------
    crash_at: str = Field("", description="fault tests only: POINT[:N] at which to die")

    @field_validator(
        "database_url", "keys_database_url", "owner_database_url", "owner_keys_database_url"
    )
    @classmethod
    def _is_postgres(cls, url: SecretStr) -> SecretStr:
        given = url.get_secret_value().strip()
        if given and not given.startswith(_POSTGRES):
            kind = given.partition("://")[0] if "://" in given else "no address"
            msg = f"it begins with postgresql:// or postgres://, and this is {kind[:20]}"
            raise ValueError(msg)
        return SecretStr(given)

    @field_validator("openai_api_key", "whapi_token")
    @classmethod
    def _fits_into_a_header(cls, key: SecretStr) -> SecretStr:
        given = key.get_secret_value().strip()
        if not all("!" <= character <= "~" for character in given):
            msg = "it has characters that no key has, as a blank or …: paste the whole key"
            raise ValueError(msg)
        return SecretStr(given)

    @field_validator("model", "apology", "host", "webhook_header", "bot")
    @classmethod
    def _is_given(cls, text: str, about: ValidationInfo) -> str:
        if not text.strip():
            default = cls.model_fields[str(about.field_name)].get_default()
            msg = f"it is empty; leave it out for the default, {default!r}"
            raise ValueError(msg)
        return text

    @field_validator("bot")
    @classmethod
    def _names_a_bot(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(NAME_RULE)
        return name

    @field_validator("openai_base_url", "whapi_base_url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        given = url.strip()
        if given and not given.startswith(("http://", "https://")):
            msg = "an address begins with https:// or http://"
            raise ValueError(msg)
        return given

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            msg = f"{name!r} is no time zone; write one as America/Bogota"
            raise ValueError(msg) from None
        return name

    @model_validator(mode="after")
    def _lives_longer_than_it_is_silent(self) -> Self:
        """Refuse a node that others would take for dead between two beats: it would never work."""
        if self.dead_seconds < 2 * self.beat_seconds:
            msg = (
                f"HILO_DEAD_SECONDS={self.dead_seconds:g} must be at least twice "
                f"HILO_BEAT_SECONDS={self.beat_seconds:g}"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _keys_have_a_database(self) -> Self:
        if not self.on_postgres:
            return self
        if not _IN_POSTGRES.fullmatch(self.bot):
            msg = (
                f"HILO_BOT: {self.bot!r} cannot name a schema: in PostgreSQL a bot is called by "
                "at most 44 of a-z, 0-9 and _"
            )
            raise ValueError(msg)
        if not self.keys_database_url.get_secret_value():
            msg = (
                "HILO_DATABASE_URL (or DATABASE_URL) is set and HILO_KEYS_DATABASE_URL is not: the "
                "keys need a database of their own, with a role of its own, so that no backup "
                "holds log and keys together; the same server will do. For a log in SQLite set "
                "HILO_DATABASE_URL to nothing"
            )
            raise ValueError(msg)
        if database_of(self.keys_database_url) == database_of(self.database_url):
            msg = (
                "HILO_KEYS_DATABASE_URL is the database of the log: make another one for the keys "
                "(CREATE DATABASE hilo_keys), the same server will do"
            )
            raise ValueError(msg)
        return self

    @property
    def on_postgres(self) -> bool:
        """True if log and keys are in PostgreSQL, False if they are files."""
        return bool(self.database_url.get_secret_value())

    @property
    def schema_name(self) -> str:
        """The PostgreSQL schema of the bot, in the log's database and in that of the keys."""
        return _SCHEMA_PREFIX + self.bot

    @property
    def openai_simulated(self) -> bool:
        """True when no key and no address were given: a simulator stands in."""
        return not self.openai_api_key.get_secret_value() and not self.openai_base_url

    @property
    def whapi_simulated(self) -> bool:
        """True when no token and no address were given: a simulator stands in."""
        return not self.whapi_token.get_secret_value() and not self.whapi_base_url

    @property
    def logs_directory(self) -> Path:
        """Where technical.log is: beside what the server writes, or two would rotate one file."""
        return self.data / "logs" if self.logs is None else self.logs

    @property
    def bot_directory(self) -> Path:
        """Where the bot's log, keys and views are."""
        return self.data / self.bot

    @property
    def tmp_directory(self) -> Path:
        """Where the bot's files for others are."""
        return self.tmp if self.bot == _DEFAULT_BOT else self.tmp / self.bot

    @property
    def on_loopback(self) -> bool:
        """True if only this machine can reach the server."""
        return self.host in {"127.0.0.1", "::1", "localhost"}


def load(**overrides: object) -> Settings:
    """Return the settings. `overrides` win over everything. Raises `SettingsError`."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = "; ".join(_problem(e) for e in error.errors())
        msg = f"cannot use these settings: {problems}. Once right, hilo config show lists them all"
        raise SettingsError(msg) from None


def field_named(name: str) -> str:
    """Return the setting that a name, or an environment variable's, stands for."""
    for field_name, field in Settings.model_fields.items():
        alias = field.validation_alias
        if isinstance(alias, AliasChoices) and name in alias.choices:
            return field_name
    return name


_PLAINLY: Final = {
    "int_parsing": "it is no whole number",
    "float_parsing": "it is no number",
    "bool_parsing": "it is neither true nor false",
}
"""What pydantic says in the words of a programmer."""


def _as_given(name: str) -> str:
    """Return the name of those of a setting by which it was given, as far as that can be told."""
    alias = Settings.model_fields[field_named(name)].validation_alias
    choices = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else []
    return next((choice for choice in choices if choice in os.environ), name)


def _problem(error: ErrorDetails) -> str:
    """Say which setting is wrong, by the name under which it is given, and what it may be."""
    if not error["loc"]:  # several of them together: the message names them
        return error["msg"].removeprefix("Value error, ")
    name = ".".join(str(part) for part in error["loc"])
    field = Settings.model_fields.get(name)
    hidden = field is None or field.annotation is SecretStr
    given = "" if hidden else f"={error['input']!r}"
    variable = f"HILO_{name.upper()}" if field is not None else _as_given(name)
    says = _PLAINLY.get(error["type"], error["msg"].removeprefix("Value error, "))
    says = says[:1].lower() + says[1:]
    return f"{variable}{given}: {says}"
