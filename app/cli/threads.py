"""`hilo threads`: the conversations and their tokens, as the read models have them (B1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from app.cli.failures import DONE, FOUND, codes
from app.cli.options import AsOf, Bot, Data, Json, Open, group, opened

if TYPE_CHECKING:
    from app.cli.people import Identity
    from app.projections import Bands, Threads, ThreadView

threads = group("threads", "Conversations and the tokens counted on them.")

TOKEN_LIMIT: Final = 1_000_000
"""The default of `--limit`: `app.projections.DEFAULT_LIMIT`, which a test compares."""

_UNREACHABLE: Final = "there is no log, or the read models are not built yet"
_ACTIONS: Final = {
    "normal": "nothing",
    "caution": "watch",
    "warning": "prepare",
    "critical": "clean",
}


@threads.command(
    "list",
    epilog=codes(unreachable="there is no log, no key to open, or a read model is not built yet"),
)
def list_threads(
    *,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, metavar="N", help="Users at most.")
    ] = 50,
    sort: Annotated[
        Literal["activity", "tokens"],
        typer.Option("--sort", metavar="activity|tokens", help="Who comes first."),
    ] = "activity",
    as_of: AsOf = None,
    opening: Open = False,
    data: Data = None,
    bot: Bot = None,
    as_json: Json = False,
) -> int:
    """List users with their conversations: the last to be active, or the largest, first.

    Says which position of the log the answer reflects. --open shows who they are, as in hilo users
    list.
    """
    from app import projections
    from app.cli import output
    from app.cli.people import CLIENTS, identities
    from app.cli.views import OF_THREADS, asked, reflects

    models = (*OF_THREADS, *([CLIENTS] if opening else []))
    with opened(data, bot) as here, asked(here, as_of, *models) as views:
        found = (
            projections.threads(views, limit=limit)
            if sort == "activity"
            else projections.top(views, limit)
        )
        who = identities(here, views, [view.user for view in found.threads]) if opening else {}
        past = as_of is not None
        reflected = reflects(here, views, found, *models, quiet=as_json, past=past)
    if as_json:
        rows = [_as_json(view) | _shown(who.get(view.user)) for view in found.threads]
        output.write_json(reflected | {"threads": rows})
        return DONE
    if found.threads:
        _write_threads(found.threads, who, limit=TOKEN_LIMIT)
    else:
        output.remark("no users yet" if sort == "activity" else "no conversation has tokens")
    return DONE


@threads.command(
    epilog=codes(
        found="a conversation is critical (at 100 % of the limit or more), or a read model has "
        "stopped or is to be rebuilt, so that the answer may be old",
        unreachable=_UNREACHABLE,
    )
)
def check(
    *,
    limit: Annotated[
        int,
        typer.Option("--limit", min=1, metavar="TOKENS", help="The limit of a conversation."),
    ] = TOKEN_LIMIT,
    largest: Annotated[
        int, typer.Option("--top", min=0, metavar="N", help="How many of the largest to show.")
    ] = 10,
    as_of: AsOf = None,
    data: Data = None,
    bot: Bot = None,
    as_json: Json = False,
) -> int:
    """Check how near to the limit conversations are: counts, bands, and the largest ones.

    Bands: below 50 % normal (do nothing), below 80 % caution (watch), below 100 % warning
    (prepare), from 100 % on critical (clean).
    """
    from app import projections
    from app.cli.views import OF_THREADS, asked, complaints, reflects

    with opened(data, bot) as here, asked(here, as_of, *OF_THREADS) as views:
        status = projections.bands(views, limit)
        largest_ones = projections.top(views, largest)
        wrong = complaints(views, here, *OF_THREADS) if as_of is None else []
        past = as_of is not None
        reflected = reflects(here, views, status, *OF_THREADS, quiet=as_json, past=past)
    if as_json:
        _write_check_json(status, largest_ones, reflected | {"wrong": wrong})
    else:
        _write_check(status, largest_ones)
    critical = any(count.threads for count in status.bands if count.band == "critical")
    return FOUND if critical or wrong else DONE


def _write_check(status: Bands, largest: Threads) -> None:
    from app.cli import output

    output.write_fields(
        [
            ("contacts", status.contacts),
            ("threads with tokens", status.with_tokens),
            ("threads near the limit (80 % and more)", status.near_limit),
            ("limit", status.limit),
        ]
    )
    output.write("")
    output.write_table(
        ("band", "threads", "tokens", "do"),
        [(count.band, count.threads, count.tokens, _ACTIONS[count.band]) for count in status.bands],
    )
    if largest.threads:
        output.write("")
        _write_threads(largest.threads, {}, limit=status.limit)


def _write_check_json(status: Bands, largest: Threads, reflected: dict[str, object]) -> None:
    from app.cli import output

    output.write_json(
        reflected
        | {
            "limit": status.limit,
            "contacts": status.contacts,
            "with_tokens": status.with_tokens,
            "near_limit": status.near_limit,
            "bands": [
                {
                    "band": count.band,
                    "threads": count.threads,
                    "tokens": count.tokens,
                    "do": _ACTIONS[count.band],
                }
                for count in status.bands
            ],
            "top": [_as_json(view, status.limit) for view in largest.threads],
        }
    )


def _write_threads(views: list[ThreadView], who: dict[str, Identity], *, limit: int) -> None:
    """Print a table of conversations, with those columns of who people are that are opened."""
    from app.cli import output

    output.write_table(
        (
            *("user", *(("phone", "name") if who else ())),
            *("thread", "tokens", "%", "band", "in", "out", "last activity"),
        ),
        [
            (
                view.user,
                *((who[view.user].number, who[view.user].called) if who else ()),
                view.thread,
                view.tokens,
                f"{view.tokens * 100 / limit:.1f}",
                view.band(limit),
                view.messages_in,
                view.messages_out,
                output.when(view.last_activity),
            )
            for view in views
        ],
    )


def _shown(identity: Identity | None) -> dict[str, object]:
    return {} if identity is None else identity.as_json()


def _as_json(view: ThreadView, limit: int = TOKEN_LIMIT) -> dict[str, object]:
    from app.cli.recorded import plain
    from app.times import iso

    instants = ("started_at", "registered_at", "last_activity")
    shown = {name: plain(getattr(view, name)) for name in view.__struct_fields__}
    for name in instants:
        micros = getattr(view, name)
        shown[name] = None if micros is None else iso(micros)
    return shown | {"band": view.band(limit)}
