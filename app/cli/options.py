"""Options that many commands share, and what they open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.installation import Installation
    from app.settings import Settings

Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Directory of the logs, instead of HILO_DATA."),
]
Bot = Annotated[
    str | None, typer.Option("--bot", metavar="NAME", help="Name of the bot, instead of HILO_BOT.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and errors as JSON on stderr.")]
JsonErrors = Annotated[bool, typer.Option("--json", help="Print errors as JSON, on stderr.")]
Open = Annotated[
    bool,
    typer.Option("--open", help="Open sealed fields with the keyring: personal data in clear."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Write FILE, whole or not at all; - is stdout."
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Replace FILE if it is there already; without, it is refused."),
]
User = Annotated[
    str | None,
    typer.Option(
        "--user",
        metavar="USER",
        help="Only this user: a pseudonym or its beginning, a phone number or a lid.",
    ),
]


def _not_empty(value: str | None) -> str | None:
    """Refuse what a script's unset variable leaves of an option."""
    if value is not None and not value.strip():
        msg = "it is empty: give a position or a time with its zone, or leave the option out"
        raise typer.BadParameter(msg)
    return value


AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="WHEN",
        callback=_not_empty,
        help="As it was at a position, or at a time with its zone (2026-11-20T14:00:00-05:00).",
    ),
]
Who = Annotated[
    str,
    typer.Argument(
        metavar="USER",
        help="A pseudonym or its beginning, a phone number, a lid (…@lid) or a stream.",
    ),
]
Types = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="TYPE", help="Only events of this type; may be repeated."),
]


def settings_of(data: Path | None, bot: str | None, **others: object) -> Settings:
    """Return the bot's settings with what the command line says on top. Raises `SettingsError`."""
    from app.bots import the_bot

    return the_bot(installation_of(data, bot, **others))


def installation_of(data: Path | None, bot: str | None, **others: object) -> Settings:
    """Return the settings of the installation, whatever its bots. Raises `SettingsError`."""
    from app.settings import load

    given = {"data": data, "bot": bot, **others}
    return load(**{name: value for name, value in given.items() if value is not None})


@contextmanager
def opened(data: Path | None, bot: str | None) -> Iterator[Installation]:
    """Give what is on the disk, for reading, and close it in the end."""
    from app.installation import Installation

    with Installation(settings_of(data, bot)) as here:
        yield here


def group(name: str, help_text: str) -> typer.Typer:
    """Return an empty group of commands."""
    return typer.Typer(name=name, help=help_text, no_args_is_help=True)


__all__ = [
    "AsOf",
    "Bot",
    "Data",
    "Force",
    "Json",
    "JsonErrors",
    "Open",
    "Output",
    "Types",
    "User",
    "Who",
    "group",
    "installation_of",
    "opened",
    "settings_of",
]
