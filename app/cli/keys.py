"""`hilo keys`: who may come in, and with which role (H4)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.cli.failures import DONE, CannotReach, FoundProblem, WrongUsage, codes
from app.cli.options import Data, Json, group, installation_of

if TYPE_CHECKING:
    from app.settings import Settings

keys = group("keys", "Bearer keys of the API: make, list and revoke them.")

_UNREACHABLE = "the control log cannot be read or written"
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


@keys.command(epilog=codes(unreachable=_UNREACHABLE))
def create(
    *,
    role: Annotated[
        Literal["auditor", "operator", "analyst", "hook", "webhook"],
        typer.Option(
            "--role",
            help="auditor: everything there is to read, texts included; operator: the bot's work "
            "and who people are, no texts; analyst: figures and events, no texts and no names; "
            "hook: POST /update-user; webhook: nothing at all, since what lets a webhook in is the "
            "secret of its channel (HILO_WEBHOOK_SECRET).",
        ),
    ],
    bot: Annotated[
        str, typer.Option("--bot", metavar="NAME", help="Only for this bot; else for all.")
    ] = "",
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires",
            metavar="WHEN",
            help="After so long (12h, 30d, 8w), or at a time with its zone; else never.",
        ),
    ] = None,
    name: Annotated[
        str, typer.Option("--name", metavar="TEXT", help="Whose or what it is for.")
    ] = "",
    data: Data = None,
    as_json: Json = False,
) -> int:
    """Make a key and show it, this once: what is kept cannot be turned back into it.

    As soon as there is one key, everybody needs one, on this machine too.
    """
    from app import access
    from app.cli import output
    from app.control import acted

    settings = installation_of(data, None)
    _refuse_unknown(settings, bot)
    until = None if expires is None else _expiry(expires)
    by = acted(settings, f"keys create --role {role}", bot=bot, why=name)
    first = not access.keys(settings)
    key_id, token = access.create(settings, role, by=by, bot=bot, name=name, expires_at=until)
    if as_json:
        output.write_json({"id": key_id, "key": token, "role": role, "bot": bot or None})
    else:
        output.write(token)
        output.remark(f"this is key {key_id}; it is not shown again. Send it as: ")
        output.remark("  Authorization: Bearer <key>")
        if first:
            output.remark("it is the first one: from now on everybody needs one, here too")
    return DONE


@keys.command("list", epilog=codes(unreachable=_UNREACHABLE))
def list_keys(*, data: Data = None, as_json: Json = False) -> int:
    """List every key that ever was, the oldest first, without what opens anything."""
    from app import access
    from app.cli import output
    from app.times import iso

    settings = installation_of(data, None)
    if not settings.on_postgres and not settings.data.is_dir():
        msg = f"nothing here yet: {settings.data} does not exist. Start hilo serve, or give --data"
        raise CannotReach(msg)
    now = int(datetime.now(UTC).timestamp() * 1e6)
    rows = [
        {
            "id": key.id,
            "role": key.role,
            "bot": key.bot or None,
            "name": key.name,
            "state": _state(key.revoked_at, key.expires_at, now),
            "created_at": iso(key.created_at),
            "by": key.by,
            "expires_at": None if key.expires_at is None else iso(key.expires_at),
            "used_at": None if key.used_at is None else iso(key.used_at),
        }
        for key in access.keys(settings)
    ]
    if as_json:
        output.write_json(rows)
    elif rows:
        output.write_rows(rows)
    else:
        output.remark("there is no key: only this machine is served, and may see everything")
    return DONE


@keys.command(
    epilog=codes(found="there is no such key, or it is revoked", unreachable=_UNREACHABLE)
)
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="Of hilo keys list.")],
    *,
    why: Annotated[
        str,
        typer.Option(
            "--why",
            metavar="TEXT",
            help='The reason, kept in the control log, as in --why "its laptop was stolen".',
        ),
    ],
    data: Data = None,
    as_json: Json = False,
) -> int:
    """Take a key back for good: within a second it opens nothing, and no restore brings it back."""
    from app import access
    from app.cli import output
    from app.control import acted

    if not why.strip():
        msg = '--why is empty: say why the key is revoked, as in --why "its laptop was stolen"'
        raise WrongUsage(msg)
    settings = installation_of(data, None)
    try:
        access.refuse_to_revoke(settings, key)  # before it is on record
        by = acted(settings, "keys revoke", bot="", why=why, about=(key,))
        access.revoke(settings, key, by=by, why=why)
    except access.NoSuchKey as error:
        raise FoundProblem(str(error)) from None
    if as_json:
        output.write_json({"id": key, "revoked": True})
    else:
        output.remark(f"key {key} opens nothing any more")
    return DONE


def _refuse_unknown(settings: Settings, bot: str) -> None:
    """Raise `WrongUsage` for a bot that is not configured: its key would open nothing."""
    from app.bots import bots_of

    names = sorted(one.bot for one in bots_of(settings))
    if bot and bot not in names:
        msg = f"--bot {bot}: there is no such bot; there are: {', '.join(names)}"
        raise WrongUsage(msg)


def _state(revoked_at: int | None, expires_at: int | None, now: int) -> str:
    if revoked_at is not None:
        return "revoked"
    return "expired" if expires_at is not None and expires_at <= now else "good"


def _expiry(text: str) -> int:
    from app.asof import UnclearMoment, micros, parse

    now, unit = datetime.now(UTC), _UNITS.get(text[-1:])
    moment: object
    try:
        if unit is not None and text[:-1].isdigit():
            moment = now + timedelta(**{unit: int(text[:-1])})
        else:
            moment = parse(text)
    except (UnclearMoment, OverflowError):
        raise WrongUsage(_no_expiry(text)) from None
    if not isinstance(moment, datetime) or moment <= now:
        raise WrongUsage(_no_expiry(text))
    return micros(moment)


def _no_expiry(text: str) -> str:
    return (
        f"--expires {text}: give how long the key is good for (12h, 30d, 8w), or a time to come "
        "with its zone (2026-11-20T14:30:00-05:00); without --expires it is good until it is "
        "revoked"
    )
