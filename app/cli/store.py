"""`hilo store`: where logs and keys are kept, prepared by those who own it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.cli.failures import DONE, WrongUsage, codes
from app.cli.options import Bot, Data, Json, group, installation_of

if TYPE_CHECKING:
    from pydantic import SecretStr

    from app.settings import Settings

store = group("store", "Where logs and keys are kept.")


@store.callback()
def _store() -> None:
    pass


@store.command(epilog=codes(unreachable="a database cannot be reached, or this owner may not"))
def prepare(*, data: Data = None, bot: Bot = None, as_json: Json = False) -> int:
    """Make or upgrade the schemas in PostgreSQL, and grant the program's roles what they need.

    As the owner of HILO_OWNER_DATABASE_URL, for every bot (or the one that is named), the control
    log and the keys. The roles are the users of HILO_DATABASE_URL and HILO_KEYS_DATABASE_URL and
    must exist. May be repeated, also while older nodes are at work.
    """
    from app.bots import bots_of, the_bot
    from app.cli import output

    settings = installation_of(data, bot)
    bots = (the_bot(settings),) if bot is not None else bots_of(settings)
    rows: list[tuple[str, str, str]] = []
    if settings.on_postgres and bot is None:
        rows.append(_control(settings))
    for one in bots:
        if one.on_postgres:
            rows += [_log(one), _keys(one)]
    if not rows:
        msg = "no log is in PostgreSQL: set HILO_DATABASE_URL first"
        raise WrongUsage(msg)
    if as_json:
        output.write_json([{"store": s, "schema": n, "role": r} for s, n, r in rows])
    else:
        output.write_table(("store", "schema", "role"), rows)
    return DONE


def _control(settings: Settings) -> tuple[str, str, str]:
    from app.stores import CONTROL_SCHEMA

    return "control log", CONTROL_SCHEMA, _prepared(settings, CONTROL_SCHEMA)


def _log(settings: Settings) -> tuple[str, str, str]:
    return f"log of {settings.bot}", settings.schema_name, _prepared(settings, settings.schema_name)


def _prepared(settings: Settings, schema: str) -> str:
    from eventstore.postgres_schema import prepare as prepare_log

    owner = _owner(settings)
    role = _user(settings.database_url)
    prepare_log(owner, schema, role=None if role == _user_of(owner) else role)
    return role


def _keys(settings: Settings) -> tuple[str, str, str]:
    from eventstore.postgres_keystore import prepare as prepare_keys

    owner = _owner_of_keys(settings)
    role = _user(settings.keys_database_url)
    if role == _user_of(owner):
        msg = (
            f"the keys' role {role!r} owns their database: give HILO_KEYS_DATABASE_URL a role of "
            "its own, which may read and add keys and no more"
        )
        raise WrongUsage(msg)
    prepare_keys(owner, settings.schema_name, role)
    return f"keys of {settings.bot}", settings.schema_name, role


def _owner(settings: Settings) -> str:
    """Return the owner's address of the log's database. Raises `WrongUsage`."""
    from app.addresses import database_of

    owner = settings.owner_database_url
    if not owner.get_secret_value():
        msg = f"say who owns the log of {settings.bot!r}: set HILO_OWNER_DATABASE_URL"
        raise WrongUsage(msg)
    if database_of(owner) != database_of(settings.database_url):
        msg = f"HILO_OWNER_DATABASE_URL is another database than that of the bot {settings.bot!r}"
        raise WrongUsage(msg)
    return owner.get_secret_value()


def _owner_of_keys(settings: Settings) -> str:
    """Return the owner's address of the keys' database. Raises `WrongUsage`."""
    from psycopg.conninfo import make_conninfo

    from app.addresses import database_of

    given = settings.owner_keys_database_url
    keys = database_of(settings.keys_database_url)
    if given.get_secret_value():
        if database_of(given) != keys:
            msg = "HILO_OWNER_KEYS_DATABASE_URL is another database than that of the keys"
            raise WrongUsage(msg)
        return given.get_secret_value()
    if database_of(settings.database_url)[:2] != keys[:2]:
        msg = "the keys are on another server: say who owns them, HILO_OWNER_KEYS_DATABASE_URL"
        raise WrongUsage(msg)
    return make_conninfo(_owner(settings), dbname=str(keys[2]))


def _user(url: SecretStr) -> str:
    return _user_of(url.get_secret_value())


def _user_of(address: str) -> str:
    from psycopg.conninfo import conninfo_to_dict

    user = conninfo_to_dict(address).get("user")
    if not user:
        msg = "an address of PostgreSQL names no user: write it as postgresql://USER@HOST/DATABASE"
        raise WrongUsage(msg)
    return str(user)
