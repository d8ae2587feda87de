"""`hilo diff`: what changed between two moments, and by which events (G2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.failures import DONE, FoundProblem, WrongUsage, codes
from app.cli.options import Bot, Data, Json, Open, opened

if TYPE_CHECKING:
    from app.cli.recorded import Presenter
    from app.installation import Installation
    from app.projections.differences import UserDiff
    from eventstore.types import Position, StreamName

CODES = codes(found="no such user")

_EVENTS_SHOWN = 200


def diff(
    since: Annotated[
        str,
        typer.Argument(
            metavar="SINCE", help="A position, or a time with its zone (2026-11-20T14:00:00-05:00)."
        ),
    ],
    until: Annotated[
        str, typer.Argument(metavar="UNTIL", help="A later moment; now, if it is left out.")
    ] = "now",
    *,
    user: Annotated[
        str | None,
        typer.Option(
            "--user",
            metavar="USER",
            help="Everything about one user, instead of the thread map of all.",
        ),
    ] = None,
    opening: Open = False,
    data: Data = None,
    bot: Bot = None,
    as_json: Json = False,
) -> int:
    """Show what changed between two moments: in the thread map, or for one user.

    Each change is shown with the events that made it. The answer about the past never changes.
    """
    from app.asof import as_of
    from app.cli.recorded import Presenter
    from app.projections.differences import of_threads, of_user

    with opened(data, bot) as here:
        start, end = as_of(here.log, since), as_of(here.log, until)
        if start > end:
            msg = f"SINCE (position {start}) is after UNTIL (position {end}): swap them"
            raise WrongUsage(msg)
        sealer = here.sealer if opening else None
        present = Presenter(here.codec, here.log.head().epoch, sealer)
        if user is not None:
            found = [of_user(here.log, _stream(here, user), start, end, present)]
        else:
            found = of_threads(here.log, start, end).users
        if as_json:
            _write_json(found, present, start, end)
        else:
            _write(found, present, start, end)
    return DONE


def _stream(here: Installation, user: str) -> StreamName:
    from app.installation import USER_PREFIX

    stream = here.stream_of(user)
    if not stream.startswith(USER_PREFIX):
        msg = f"{stream} is not a user's stream"
        raise FoundProblem(msg)
    return stream


def _write_json(found: list[UserDiff], present: Presenter, start: Position, end: Position) -> None:
    from app.cli import output

    output.write_json(
        {
            "since": start,
            "until": end,
            "users": [
                {
                    "user": one.user,
                    "changes": one.changes,
                    "events": [present.as_json(event) for event in one.events],
                }
                for one in found
            ],
        }
    )


def _write(found: list[UserDiff], present: Presenter, start: Position, end: Position) -> None:
    from app.cli import output

    output.remark(f"from position {start} to position {end}")
    if not any(one.changes or one.events for one in found):
        output.remark("nothing changed")
        return
    for number, one in enumerate(found):
        if number:
            output.write("")
        output.write(one.user)
        output.write_table(
            ("  field", "before", "after"),
            [
                (
                    f"  {change.field}",
                    _said(change.field, change.before),
                    _said(change.field, change.after),
                )
                for change in one.changes
            ],
        )
        for event in one.events[:_EVENTS_SHOWN]:
            when = output.when(event.recorded_at)
            output.write(f"  {event.position:>9}  {when}  {present.as_words(event)}")
        if len(one.events) > _EVENTS_SHOWN:
            output.remark(f"… and {len(one.events) - _EVENTS_SHOWN} more events: see --json")


def _said(field: str, value: object) -> object:
    """Return a value as people read it: instants as times, and 0, which is "never", as none."""
    from app.cli.output import when

    is_instant = field.endswith(("_at", "last_activity")) and isinstance(value, int)
    return when(value or None) if is_instant else value


__all__ = ["CODES", "diff"]
