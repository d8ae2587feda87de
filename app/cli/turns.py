"""`hilo turns`: what waits for an answer, and what was given up until an operator decides (A20)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from app.cli.failures import DONE, FOUND, FoundProblem, WrongUsage, codes
from app.cli.options import Bot, Data, Json, group, installation_of, opened
from app.times import iso

if TYPE_CHECKING:
    from pathlib import Path

    from app.aggregates.user import User
    from app.installation import Installation
    from eventstore.types import Micros, StreamName

turns = group("turns", "Turns that are open or parked: list them, retry them, drop them.")

_MOST_NAMED: Final = 100
"""People that one entry of the control log names; --all may mean more."""

Verb = Literal["retry", "drop"]
Outcome = Literal["done", "nothing parked", "busy"]

OneOf = Annotated[
    str | None,
    typer.Argument(metavar="USER", help="A pseudonym, a phone number or a lid (…@lid)."),
]
All = Annotated[bool, typer.Option("--all", help="Every parked turn, instead of one user's.")]
_CHANGING = codes(
    found="a turn was not changed: nothing is parked, or a run is under way",
    unreachable="there is no log, or it cannot be written",
)


@turns.command("list", epilog=codes())
def list_turns(
    *,
    parked: Annotated[bool, typer.Option("--parked", help="Only parked turns.")] = False,
    data: Data = None,
    bot: Bot = None,
    as_json: Json = False,
) -> int:
    """List the turns that are not over, oldest first: parked, waiting, running, delivering."""
    from app.cli import output
    from app.cli.work import open_turns

    with opened(data, bot) as here:
        position = here.log.head().position
        found = [turn for turn in open_turns(here) if not parked or turn.state == "parked"]
    if as_json:
        rows = [
            {
                "user": turn.user,
                "state": turn.state,
                "messages": turn.messages,
                "since": iso(turn.since),
                "attempts": turn.attempts,
                "detail": turn.detail,
            }
            for turn in found
        ]
        output.write_json({"position": position, "turns": rows})
        return DONE
    if not found:
        output.remark("no turn is parked" if parked else "no turn is open or parked")
        return DONE
    output.write_table(
        ("user", "state", "messages", "since", "attempts", "detail"),
        [(t.user, t.state, t.messages, output.when(t.since), t.attempts, t.detail) for t in found],
    )
    return DONE


@turns.command(epilog=_CHANGING)
def retry(
    who: OneOf = None,
    *,
    why: Annotated[
        str,
        typer.Option("--why", metavar="TEXT", help="The reason, kept in the log in clear."),
    ] = "",
    every: All = False,
    data: Data = None,
    bot: Bot = None,
    as_json: Json = False,
) -> int:
    """Make a parked turn due again: its messages are answered as if they had just come.

    The server may be running or not; the log names the user of this machine who asked for it.
    """
    with opened(data, bot) as here:
        streams = _meant(here, who, every=every)
        by = _recorded(here, "retry", streams, why=why, data=data)
        return _change(here, "retry", streams, by=by, why=why, every=every, as_json=as_json)


@turns.command(epilog=_CHANGING)
def drop(
    who: OneOf = None,
    *,
    why: Annotated[
        str,
        typer.Option(
            "--why",
            metavar="TEXT",
            help='The reason, kept in the log in clear, as in --why "answered by phone".',
            show_default=False,
        ),
    ],
    every: All = False,
    data: Data = None,
    bot: Bot = None,
    as_json: Json = False,
) -> int:
    """Close a parked turn without an answer.

    The server may be running or not; the log names the user of this machine who asked for it.
    """
    if not why.strip():
        msg = "--why is empty: say why nobody will answer"
        raise WrongUsage(msg)
    with opened(data, bot) as here:
        streams = _meant(here, who, every=every)
        by = _recorded(here, "drop", streams, why=why, data=data)
        return _change(here, "drop", streams, by=by, why=why, every=every, as_json=as_json)


def _recorded(
    here: Installation, verb: Verb, streams: list[StreamName], *, why: str, data: Path | None
) -> str:
    """Record in the control log what is asked for; return who asks."""
    from app.control import acted, operator

    about = tuple(stream.removeprefix("user/") for stream in streams[:_MOST_NAMED])
    if streams:
        action = f"turns {verb}"
        acted(
            installation_of(data, None),
            action,
            bot=here.settings.bot,
            why=why.strip(),
            about=about,
        )
    return operator()


def _change(
    here: Installation,
    verb: Verb,
    streams: list[StreamName],
    *,
    by: str,
    why: str,
    every: bool,
    as_json: bool,
) -> int:
    from app.cli import output
    from app.cli.replay import decide

    def command(user: User, now: Micros) -> Outcome:
        return _decided(user, verb, by=by, why=why.strip(), now=now)

    outcomes = {stream: decide(here, stream, command) for stream in streams}
    if every:  # whoever is no longer parked was not meant
        outcomes = {s: outcome for s, outcome in outcomes.items() if outcome != "nothing parked"}
    rows = [(stream.removeprefix("user/"), outcome) for stream, outcome in outcomes.items()]
    if as_json:
        output.write_json(
            {"by": by, "turns": [{"user": user, "outcome": outcome} for user, outcome in rows]}
        )
    elif rows:
        output.write_table(("user", verb), rows)
    else:
        output.remark("no turn is parked")
    return FOUND if any(outcome != "done" for _, outcome in rows) else DONE


def _meant(here: Installation, who: str | None, *, every: bool) -> list[StreamName]:
    from app.cli.work import parked_streams
    from app.installation import USER_PREFIX

    if every == (who is not None):
        msg = "give one USER, or --all for every parked turn"
        raise WrongUsage(msg)
    if who is None:
        return sorted(parked_streams(here))
    stream = here.stream_of(who)
    if not stream.startswith(USER_PREFIX):
        msg = f"{stream} is not a user's stream: it has no turns"
        raise FoundProblem(msg)
    return [stream]


def _decided(user: User, verb: Verb, *, by: str, why: str, now: Micros) -> Outcome:
    from app.aggregates.answers import Busy, Done

    answer = (
        user.turn_retried(by, now=now, why=why)
        if verb == "retry"
        else user.turn_dropped(by, now=now, why=why)
    )
    match answer:
        case Done():
            return "done"
        case Busy():
            return "busy"
        case _:
            return "nothing parked"
