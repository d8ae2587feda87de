"""`hilo config` and `hilo version`: what this installation is and how it is set up."""

from __future__ import annotations

import platform
import sqlite3
from importlib import metadata
from typing import TYPE_CHECKING, Final

import typer

from app.addresses import MASK, without_secrets
from app.cli.failures import DONE, codes
from app.cli.options import Bot, Data, Json, group, installation_of
from app.release import release

if TYPE_CHECKING:
    from app.bots import Configured
    from app.settings import Settings

config = group("config", "How this installation is set up.")

VERSION_CODES: Final = codes(unreachable="(never)")
_WIDEST: Final = 48
"""Of a value in the table; --json has it whole."""

_LIBRARIES: Final = ("eventsourcing", "msgspec", "openai", "cryptography")


@config.command("show", epilog=codes(unreachable="(never)"))
def show_config(*, data: Data = None, bot: Bot = None, as_json: Json = False) -> int:
    """Show every setting, its value and where it came from. Secrets are masked.

    The table cuts long values off; --json has them whole.

    A setting comes from the command line, else the bot's table in the file of the bots, else the
    environment, else the file .env, else its default. Variables that look like settings and
    are none are named on stderr.
    """
    from app.bots import configured_bot
    from app.cli import output
    from app.setting_sources import environment_name
    from app.settings import Settings
    from app.strays import strays

    bot_here = configured_bot(installation_of(data, bot))
    settings = bot_here.settings
    given = {name for name, value in (("data", data), ("bot", bot)) if value is not None}
    came_from = _came_from(bot_here, given)
    rows = [
        {
            "setting": name,
            "environment": environment_name(name),
            "value": shown_value(settings, name),
            "from": came_from[name],
            "what it is": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]
    for stray in strays(bot_here.settings):
        output.remark(str(stray))
    if as_json:
        output.write_json(
            {
                row["setting"]: {
                    "value": row["value"],
                    "from": row["from"],
                    "description": row["what it is"],
                }
                for row in rows
            }
        )
        return DONE
    shown = [{**row, "value": _as_word(row["value"])} for row in rows]
    output.write_table(tuple(shown[0]), [tuple(row.values()) for row in shown])
    return DONE


def _came_from(bot: Configured, given: set[str]) -> dict[str, str]:
    """Return where each value came from; a bot's table says so before the environment does."""
    from app.bots import OF_THE_BOT, bots_file
    from app.setting_sources import sources

    path = bots_file(bot.settings)
    table = {} if path is None else dict.fromkeys(OF_THE_BOT, "default")
    if path is not None:
        table |= dict.fromkeys((*bot.given, "bot"), path.name)
    return sources(bot.settings) | table | dict.fromkeys(given, "command line")


def shown_value(settings: Settings, name: str) -> str | int | float | bool:
    """Return a setting as it may be shown: secrets, and passwords in addresses, are masked."""
    from pydantic import SecretStr

    value = getattr(settings, name)
    match value:
        case SecretStr():
            secret = value.get_secret_value()
            shown = without_secrets(secret) if "://" in secret else MASK
            return shown if secret else ""
        case None:
            return ""
        case bool() | int() | float():
            return value
        case _:
            return without_secrets(str(value))


def _as_word(value: object) -> str:
    word = str(value).lower() if isinstance(value, bool) else str(value)
    return word if len(word) <= _WIDEST else f"{word[: _WIDEST - 1]}…"


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
