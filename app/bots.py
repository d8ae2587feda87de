"""The bots of an installation: one by the settings alone, or several by a file, `bots.toml`.

    [bots.sales]
    channel = "HERON-K7Q2M"
    webhook_secret_env = "SALES_SECRET"    # the secret is in that environment variable
    whapi_token_env = "SALES_TOKEN"
    model = "gpt-5-mini"
    runs_at_once = 20                      # of those of the node; the rest are shared out

Each table is a bot: any setting of its own, by the names of `hilo config show`; what it leaves out
is the installation's. What makes a bot itself (its channel, its token, its webhook secret) is never
taken from there, and what belongs to the node (its address, its directories) is not a bot's to say.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails

from app.settings import NAME, NAME_RULE, Settings, SettingsError, field_named

OF_THE_NODE: Final = frozenset(
    {"data", "logs", "tmp", "bots", "bot", "node", "host", "port", "webhook_header"}
    | {"max_body", "head_seconds", "body_seconds", "webhook_seconds", "connections", "crash_at"}
)
OF_THE_BOT: Final = frozenset({"channel", "webhook_secret", "whapi_token"})
"""What no bot takes from the installation: two would answer for one another."""

RESERVED: Final = frozenset({"whapi", "control"})
"""Names that a path or a directory has for something else."""

_ENV: Final = "_env"


class Configured(msgspec.Struct, frozen=True):
    """One bot, and which of its settings its table gives."""

    settings: Settings
    given: frozenset[str] = frozenset()


def bots_of(settings: Settings) -> tuple[Settings, ...]:
    """Return the settings of every bot of this installation. Raises `SettingsError`."""
    return tuple(bot.settings for bot in configured(settings))


def the_bot(settings: Settings) -> Settings:
    """Return the settings of the bot that is meant: by --bot or HILO_BOT, or the only one.

    Raises `SettingsError` if there are several and none is named, or none of that name.
    """
    return configured_bot(settings).settings


def configured_bot(settings: Settings) -> Configured:
    """Do as `the_bot`, and tell what its table gives."""
    bots = {bot.settings.bot: bot for bot in configured(settings)}
    if bots_file(settings) is None or (len(bots) == 1 and "bot" not in settings.model_fields_set):
        return next(iter(bots.values()))
    names = ", ".join(bots)
    if "bot" not in settings.model_fields_set:
        msg = f"there are several bots: name one with --bot ({names})"
        raise SettingsError(msg)
    if settings.bot not in bots:
        msg = f"there is no bot {settings.bot!r} in {bots_file(settings)}: there is {names}"
        raise SettingsError(msg)
    return bots[settings.bot]


def bots_file(settings: Settings) -> Path | None:
    """Return the file that configures the bots; None if the settings alone do."""
    if settings.bots:
        return Path(settings.bots)
    path = settings.data / "bots.toml"
    return path if path.is_file() else None


def variables_of(settings: Settings) -> frozenset[str]:
    """Return the variables that tables of the bots' file name. Raises `SettingsError`."""
    path = bots_file(settings)
    tables = {} if path is None else _tables(path)
    return frozenset(
        value
        for table in tables.values()
        if isinstance(table, dict)
        for key, value in table.items()
        if key.endswith(_ENV) and isinstance(value, str)
    )


def configured(settings: Settings) -> tuple[Configured, ...]:
    """Return every bot with what its table gives. Raises `SettingsError`."""
    path = bots_file(settings)
    if path is None:
        return (Configured(settings),)
    bots = tuple(_bot(settings, path, name, table) for name, table in _tables(path).items())
    _refuse_what_is_shared(path, [bot.settings for bot in bots])
    return bots


def _tables(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        msg = f"the bots' file {path} cannot be read: {error.strerror}. HILO_BOTS names it"
        raise SettingsError(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{path} is not TOML: {error}"
        raise SettingsError(msg) from None
    others = sorted(content.keys() - {"bots"})
    if others:
        msg = f"{path}: [{others[0]}] is unknown; each bot is a table [bots.NAME]"
        raise SettingsError(msg)
    bots = content.get("bots")
    if not isinstance(bots, dict) or not bots:
        msg = f"{path} names no bot: each is a table [bots.NAME]"
        raise SettingsError(msg)
    return bots


def _bot(settings: Settings, path: Path, name: str, table: object) -> Configured:
    where = f"{path} [bots.{name}]"
    if not NAME.fullmatch(name) or name in RESERVED:
        msg = f"{where}: {NAME_RULE}, and not whapi or control"
        raise SettingsError(msg)
    if not isinstance(table, dict):
        msg = f"{where} is not a table"
        raise SettingsError(msg)
    values = _values(where, table)
    base = {key: getattr(settings, key) for key in Settings.model_fields if key not in OF_THE_BOT}
    plain = {key: Settings.model_fields[key].get_default() for key in OF_THE_BOT}
    try:
        merged = Settings(**{**base, **plain, **values, "bot": name})
    except ValidationError as error:
        raise SettingsError("; ".join(_said(where, e, values) for e in error.errors())) from None
    return Configured(merged, frozenset(values))


def _values(where: str, table: Mapping[str, object]) -> dict[str, object]:
    """Return a table's settings, those that environment variables hold among them."""
    values: dict[str, object] = {}
    for key, value in table.items():
        name = key.removesuffix(_ENV)
        if name in OF_THE_NODE:
            msg = f"{where} {key}: this is the node's, not a bot's; set it for the installation"
            raise SettingsError(msg)
        if name not in Settings.model_fields:
            close = difflib.get_close_matches(name, Settings.model_fields, n=1)
            hint = f"did you mean {close[0]}?" if close else "hilo config show lists all"
            msg = f"{where} {key}: there is no such setting; {hint}"
            raise SettingsError(msg)
        if name in values:
            msg = f"{where} {key}: given twice, as {name} and as {name}{_ENV}"
            raise SettingsError(msg)
        values[name] = value if name == key else _from_environment(where, key, value)
    return values


def _from_environment(where: str, key: str, variable: object) -> str:
    if not isinstance(variable, str) or not os.environ.get(variable):
        msg = f"{where} {key}: the environment has no {variable!r}, or it is empty"
        raise SettingsError(msg)
    return os.environ[variable]


def _said(where: str, error: ErrorDetails, values: Mapping[str, object]) -> str:
    says = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return f"{where}: {says}"
    name = field_named(str(error["loc"][0]))
    field = Settings.model_fields.get(name)
    secret = field is None or field.annotation is SecretStr
    given = "" if secret or name not in values else f" = {values[name]!r}"
    return f"{where} {name}{given}: {says[:1].lower()}{says[1:]}"


def _refuse_what_is_shared(path: Path, bots: list[Settings]) -> None:
    """Raise `SettingsError` if two bots have one channel, token or secret."""
    for key in sorted(OF_THE_BOT):
        owners: dict[str, str] = {}
        for bot in bots:
            value = getattr(bot, key)
            plain = value.get_secret_value() if isinstance(value, SecretStr) else value
            other = owners.setdefault(plain, bot.bot) if plain else bot.bot
            if other != bot.bot:
                msg = f"{path}: [bots.{other}] and [bots.{bot.bot}] have the same {key}"
                raise SettingsError(msg)
