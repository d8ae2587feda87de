"""`hilo migrate-store`: a bot's log and keys, moved between SQLite and PostgreSQL (H2)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli.failures import DONE, WrongUsage, codes
from app.cli.options import Bot, Data, Json, installation_of, settings_of

if TYPE_CHECKING:
    from app.cli.output import Bar
    from eventstore.migrate import Say

CODES: Final = codes(
    found="the target holds something else, or is not what it was copied from",
    unreachable="a log or a keyring cannot be reached, or is served",
)
_WHERE: Final = "sqlite:DIR, postgresql://…, or postgres: what HILO_[OWNER_]DATABASE_URL says."
_KEYS: Final = "PostgreSQL database of the keys, instead of HILO_KEYS_DATABASE_URL."


def migrate_store(
    source: Annotated[str, typer.Argument(metavar="FROM", help=_WHERE)],
    target: Annotated[str, typer.Argument(metavar="TO", help=_WHERE)],
    *,
    keys_from: Annotated[
        str | None, typer.Option("--keys-from", metavar="URL", help=f"Of FROM: {_KEYS}")
    ] = None,
    keys_to: Annotated[
        str | None, typer.Option("--keys-to", metavar="URL", help=f"Of TO: {_KEYS}")
    ] = None,
    control: Annotated[
        bool, typer.Option("--control", help="The installation's control log instead of a bot's.")
    ] = False,
    data: Data = None,
    bot: Bot = None,
    as_json: Json = False,
) -> int:
    """Copy a stopped bot's log and keys from SQLite to PostgreSQL, or back, and compare every leaf.

    The source stays as it is. A copy that was interrupted goes on where it stopped when the
    command is run again; until it is complete, hilo serve refuses the target. The control log
    keeps who moved what from where to where.
    """
    from app.cli import output
    from app.moves import record_move, record_move_of_control
    from app.moving import ControlPlace, Place, move_house

    settings = installation_of(data, bot) if control else settings_of(data, bot)
    place = ControlPlace if control else Place
    origin = place(source, keys_from, settings)
    goal = place(target, keys_to, settings)
    if str(origin) == str(goal):
        msg = f"FROM and TO are both {origin}: name another TO"
        raise WrongUsage(msg)
    began = time.monotonic()

    def record() -> None:
        if not control:
            record_move(installation_of(data, bot), origin, goal)

    with output.bar("copying") as bar:
        moved, key_rows = move_house(origin, goal, _shown_in(bar), record=record)
    if control:
        record_move_of_control(origin, goal)
    seconds = time.monotonic() - began
    shown: dict[str, object] = {
        "from": str(origin),
        "to": str(goal),
        "epoch": moved.head.epoch,
        "events": moved.head.position,
        "streams": moved.streams,
        "keys": moved.keys,
        "keyring_rows": key_rows,
        "resumed_at": moved.resumed_at,
        "seconds": round(seconds, 3),
        "events_per_second": round(moved.head.position / seconds),
    }
    if as_json:
        output.write_json(shown | {"set": goal.switch()})
        return DONE
    output.write_fields([(name.replace("_", " "), value) for name, value in shown.items()])
    output.remark("every leaf was compared")
    if not control:
        output.remark("to use the copy, start hilo serve with:")
        for name, value in goal.switch().items():
            output.remark(f"  {name}={value}" if value else f"  {name} not set")
        output.remark("and with the key-encryption key that it had (DATA/kek, or HILO_KEK)")
    return DONE


def _shown_in(bar: Bar) -> Say:
    def say(what: str, done: int, total: int) -> None:
        bar.name(what)
        bar.at(done, total)

    return say
