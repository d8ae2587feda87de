"""`hilo users`: who there is, and one person as the log tells it, now or as of any moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.failures import DONE, FoundProblem, codes
from app.cli.options import AsOf, Bot, Data, Json, Open, Who, group, opened

if TYPE_CHECKING:
    from app.aggregates.user import User
    from app.cli.people import Identity
    from app.cli.work import OpenTurn
    from app.installation import Installation
    from app.projections import ThreadView
    from eventstore.types import StreamName

_MOST = 1000
_FARTHEST = 10_000_000
"""Of a page of people, as over HTTP: each of them is opened by reads of their own."""
_SEALED = "«sealed»"
_UNOPENED = "sealed, and could not be opened: see hidden"

users = group("users", "The people who write to the bot.")


@users.command(
    "list",
    epilog=codes(unreachable="there is no log, no key to open, or a read model is not built yet"),
)
def list_users(
    *,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=_MOST, metavar="N", help="Users at most.")
    ] = 50,
    offset: Annotated[
        int,
        typer.Option("--offset", min=0, max=_FARTHEST, metavar="N", help="Leave out the first N."),
    ] = 0,
    as_of: AsOf = None,
    opening: Open = False,
    data: Data = None,
    bot: Bot = None,
    as_json: Json = False,
) -> int:
    """List who writes to the bot: the last to be active first, a page at a time.

    Numbers and names are personal data, and sealed unless --open is given. The name is the address
    book's, or else what they call themselves. Says which position of the log the answer reflects;
    pages of one --as-of do not move while people write.
    """
    from app import projections
    from app.cli import output
    from app.cli.people import CLIENTS, identities
    from app.cli.views import OF_THREADS, asked, reflects

    models = (*OF_THREADS, *([CLIENTS] if opening else []))
    with opened(data, bot) as here, asked(here, as_of, *models) as views:
        found = projections.threads(views, limit=limit + 1, offset=offset)
        page = found.threads[:limit]
        who = identities(here, views, [view.user for view in page]) if opening else None
        past = as_of is not None
        reflected = reflects(here, views, found, *models, quiet=as_json, past=past)
    following = offset + limit if len(found.threads) > limit else None
    if as_json:
        rows = [_listed(view, who) for view in page]
        output.write_json(reflected | {"opened": opening, "users": rows, "next": following})
        return DONE
    _write_page(page, who)
    if following is not None:
        output.remark(f"there are more: --offset {following}")
    return DONE


def _listed(view: ThreadView, who: dict[str, Identity] | None) -> dict[str, object]:
    from app.times import iso

    sealed: dict[str, object] = dict.fromkeys(("handles", "name", "user_name"))
    return {
        "user": view.user,
        **(sealed if who is None else who[view.user].as_json()),
        "registered_at": None if view.registered_at is None else iso(view.registered_at),
        "last_activity": None if view.last_activity is None else iso(view.last_activity),
        "messages_in": view.messages_in,
        "messages_out": view.messages_out,
        "thread": view.thread,
        "tokens": view.tokens,
    }


def _write_page(page: list[ThreadView], who: dict[str, Identity] | None) -> None:
    from app.cli import output

    if not page:
        output.remark("nobody has written yet, or --offset is beyond the last")
        return
    if who is None:
        output.remark("who they are is sealed: --open shows numbers and names")
    output.write_table(
        ("user", "phone", "name", "registered", "last activity", "in", "out"),
        [
            (
                view.user,
                *_who(view.user, who),
                output.when(view.registered_at),
                output.when(view.last_activity),
                view.messages_in,
                view.messages_out,
            )
            for view in page
        ],
    )


def _who(user: str, who: dict[str, Identity] | None) -> tuple[str, str]:
    return (_SEALED, _SEALED) if who is None else (who[user].number, who[user].called)


@users.command("show", epilog=codes(found="no such user, or none yet at that moment"))
def show_user(
    who: Who, *, when: AsOf = None, data: Data = None, bot: Bot = None, as_json: Json = False
) -> int:
    """Show one user: handles, thread, tokens, what is open, last activity.

    Handles and names are personal data: they are shown where the keyring is at hand. The name is
    the address book's; the user name is what they call themselves in their messages.
    """
    from app.asof import as_of
    from app.cli.replay import user_of
    from app.installation import USER_PREFIX

    with opened(data, bot) as here:
        stream = here.stream_of(who)
        if not stream.startswith(USER_PREFIX):
            msg = f"{stream} is not a user's stream: see hilo log show {stream}"
            raise FoundProblem(msg)
        position = as_of(here.log, when)
        user = user_of(here, stream, position)
        if user.version == 0:
            raise FoundProblem(_not_yet(here, who, stream, position))
        shown = _identity(here, user) | _standing(user) | {"position": position}
        _print(shown, user, as_json=as_json)
    return DONE


def _not_yet(here: Installation, who: str, stream: StreamName, position: int) -> str:
    from app.cli.output import when

    first = here.log.read_stream(stream, limit=1)
    if not first:
        return f"{who} has a pseudonym, and no event in this log"
    return (
        f"{who} did not exist as of position {position}: their first event is at position "
        f"{first[0].position}, of {when(first[0].recorded_at)}"
    )


def _identity(here: Installation, user: User) -> dict[str, object]:
    from app.installation import USER_PREFIX, InstallationError
    from app.projections.clients import last_name_said
    from eventstore.errors import KeyringError

    pseudonym = user.stream.removeprefix(USER_PREFIX)
    identity: dict[str, object] = dict.fromkeys(("user", "handles", "name", "user_name"))
    identity["user"] = pseudonym
    try:
        handles = here.keyring.handles_of(pseudonym)
        identity["handles"] = [{"kind": h.kind, "value": h.value} for h in handles]
        identity["name"] = _name(here, user, pseudonym)
        identity["user_name"] = last_name_said(user.stream, user.version, here.log, here.sealer)
    except (InstallationError, KeyringError) as error:
        identity["hidden"] = str(error)
    return identity


def _name(here: Installation, user: User, pseudonym: str) -> str | None:
    from app.aggregates.events import Profile

    sealed = user.state.profile
    if sealed is None:
        return None
    return here.sealer.open(pseudonym, user.stream, "profile", sealed, Profile).shown_name


def _standing(user: User) -> dict[str, object]:
    from app.projections.token_totals import band
    from app.times import iso

    s = user.state
    thread = None
    if s.thread is not None:
        thread = {
            "id": s.thread.id,
            "started_at": iso(s.thread.started_at),
            "tokens": s.thread.tokens,
            "band": band(s.thread.tokens),
        }
    return {
        "gateway": s.contact.gateway if s.contact else None,
        "registered_at": iso(s.contact.registered_at) if s.contact else None,
        "last_activity": iso(s.activity_at) if s.activity_at else None,
        "thread": thread,
        "last_reset": s.last_reset,
        "turns": _turns(user),
        "version": user.version,
        "read_only": user.read_only,
    }


def _turns(user: User) -> list[dict[str, object]]:
    from app.cli.work import turns_of

    return [_turn(turn) for turn in turns_of(user.stream, user.state)]


def _turn(turn: OpenTurn) -> dict[str, object]:
    from app.times import iso

    return {
        "state": turn.state,
        "messages": turn.messages,
        "since": iso(turn.since),
        "attempts": turn.attempts,
        "detail": turn.detail,
    }


def _print(shown: dict[str, object], user: User, *, as_json: bool) -> None:
    from app.cli import output

    if as_json:
        output.write_json(shown)
        return
    open_turns = [("turn", _words("turn", turn)) for turn in _turns(user)]
    told = shown | _absent(shown, user)
    fields = [
        (name.replace("_", " "), _words(name, value))
        for name, value in told.items()
        if name != "turns"
    ]
    output.write_fields([*fields, *open_turns])
    if user.read_only:
        output.remark("this user's stream holds events of a newer release: upgrade this node")


def _absent(shown: dict[str, object], user: User) -> dict[str, str]:
    """Return, for what is not there of who they are, why it is not."""
    from app.projections.clients import NAMED_WITHIN

    if "hidden" in shown:
        why = dict.fromkeys(("handles", "name", "user_name"), _UNOPENED)
    else:
        said = f"not told: not in the last {NAMED_WITHIN} events"
        why = {"name": "empty in the address book", "user_name": said}
    if user.state.profile is None:  # then nothing is sealed, either
        why["name"] = "not told: no address book and no import has named them"
    return {name: reason for name, reason in why.items() if not shown[name]}


def _words(name: str, value: object) -> object:
    """Return a value as one line of text."""
    from app.cli.output import readable

    match name, value:
        case "handles", list():
            return ", ".join(f"{h['kind']} {h['value']}" for h in value) or "none"
        case "turn", dict():
            told = value | {"since": readable(str(value["since"]))}
            return ", ".join(f"{k} {v}" for k, v in told.items() if v not in ("", 0))
        case (("registered_at" | "last_activity"), str()):
            return readable(value)
        case "thread", dict():
            return f"{value['id']}, {value['tokens']:,} tokens ({value['band']})"
        case _:
            return value
