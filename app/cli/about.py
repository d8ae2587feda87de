"""`hilo config` and `hilo version`: what this installation is and how it is set up."""

from __future__ import annotations

import platform
import sqlite3
from importlib import metadata
from typing import TYPE_CHECKING, Final

import typer

from app.addresses import MASK, without_secrets
from app.cli.failures import DONE, codes
from app.cli.options import Bot, Data, Json, group, settings_of
from app.release import release

if TYPE_CHECKING:
    from app.settings import Settings

config = group("config", "How this installation is set up.")

VERSION_CODES: Final = codes(unreachable="(never)")
_LIBRARIES: Final = ("eventsourcing", "msgspec", "openai", "cryptography")


@config.command("show", epilog=codes(unreachable="(never)"))
def show_config(*, data: Data = None, bot: Bot = None, as_json: Json = False) -> int:
    """Show every setting, its value and where it came from. Secrets are masked.

    A setting comes from the command line, else the environment, else the file .env, else its
    default.
    """
    from app.cli import output
    from app.settings import Settings, sources

    settings = settings_of(data, bot)
    given = {name for name, value in (("data", data), ("bot", bot)) if value is not None}
    came_from = sources(settings) | dict.fromkeys(given, "command line")
    shown = {name: shown_value(settings, name) for name in Settings.model_fields}
    if as_json:
        output.write_json(
            {name: {"value": value, "from": came_from[name]} for name, value in shown.items()}
        )
        return DONE
    output.write_table(
        ("setting", "environment", "value", "from"),
        [
            (name, environment_name(name), _as_word(value), came_from[name])
            for name, value in shown.items()
        ],
    )
    return DONE


def shown_value(settings: Settings, name: str) -> str | int | float | bool:
    """Return a setting as it may be shown: secrets, and passwords in addresses, are masked."""
    from pydantic import SecretStr

    value = getattr(settings, name)
    match value:
        case SecretStr():
            secret = value.get_secret_value()
            shown = without_secrets(secret) if "://" in secret else MASK
            return shown if secret else ""
        case bool() | int() | float():
            return value
        case _:
            return without_secrets(str(value))


def environment_name(name: str) -> str:
    """Return the environment variable of a setting."""
    from pydantic import AliasChoices

    from app.settings import Settings

    alias = Settings.model_fields[name].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return f"{Settings.model_config.get('env_prefix', '')}{name}".upper()


def _as_word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def version(*, as_json: Json = False) -> int:
    """Show the version of Hilo, of Python and of the libraries that keep the log."""
    from app.cli import output

    versions = {
        "hilo": release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: metadata.version(name) for name in _LIBRARIES},
    }
    if as_json:
        output.write_json(versions)
    else:
        output.write_fields(list(versions.items()))
    return DONE


def show_version(value: bool) -> None:  # noqa: FBT001 - the shape of an option's callback
    """Answer `hilo --version`."""
    if value:
        typer.echo(f"hilo {release()}")
        raise typer.Exit
