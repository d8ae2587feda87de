"""`hilo threads`: the conversations and their tokens, as the read models have them (B1)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from app.cli.failures import DONE, FOUND, codes
from app.cli.options import AsOf, Bot, Data, Json, group, opened

if TYPE_CHECKING:
    from app.installation import Installation
    from app.projections import Bands, Threads, ThreadView, Views

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


@threads.command("list", epilog=codes(unreachable=_UNREACHABLE))
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
    data: Data = None,
    bot: Bot = None,
    as_json: Json = False,
) -> int:
    """List users with their conversations: the last to be active, or the largest, first.

    Says which position of the log the answer reflects.
    """
    from app import projections
    from app.cli import output

    with opened(data, bot) as here, _asked(here, as_of) as views:
        found = (
            projections.threads(views, limit=limit)
            if sort == "activity"
            else projections.top(views, limit)
        )
        reflected = _reflects(here, views, found, quiet=as_json, past=as_of is not None)
    if as_json:
        output.write_json(reflected | {"threads": [_as_json(view) for view in found.threads]})
        return DONE
    if found.threads:
        _write_threads(found.threads, limit=TOKEN_LIMIT)
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
    from app.cli.views import complaints

    with opened(data, bot) as here, _asked(here, as_of) as views:
        status = projections.bands(views, limit)
        largest_ones = projections.top(views, largest)
        wrong = complaints(views, here) if as_of is None else []
        reflected = _reflects(here, views, status, quiet=as_json, past=as_of is not None)
    if as_json:
        _write_check_json(status, largest_ones, reflected | {"wrong": wrong})
    else:
        _write_check(status, largest_ones)
    critical = any(count.threads for count in status.bands if count.band == "critical")
    return FOUND if critical or wrong else DONE


@contextmanager
def _asked(here: Installation, as_of: str | None) -> Iterator[Views]:
    """Give the read models as they are, or as they were."""
    from app import asof
    from app.cli.pasts import past_of
    from app.cli.views import views_of

    if as_of is None:
        with views_of(here) as views:
            yield views
        return
    with past_of(here, asof.as_of(here.log, as_of), "thread_map", "token_totals") as views:
        yield views


def _reflects(
    here: Installation, views: Views, answer: Threads | Bands, *, quiet: bool, past: bool
) -> dict[str, object]:
    """Return which position of the log an answer reflects, and say it to people."""
    from app.cli import output
    from app.cli.views import complaints

    head = here.log.head().position
    lag = max(0, head - answer.position)
    if not quiet:
        behind = f", {lag} events behind it" if lag and not past else ""
        output.remark(f"as of position {answer.position} of a log that ends at {head}{behind}")
        for complaint in [] if past else complaints(views, here):
            output.remark(f"warning: {complaint}")
    return {"position": answer.position, "head": head, "lag": lag}


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
        _write_threads(largest.threads, limit=status.limit)


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


def _write_threads(views: list[ThreadView], *, limit: int) -> None:
    from app.cli import output

    output.write_table(
        ("user", "thread", "tokens", "%", "band", "in", "out", "last activity"),
        [
            (
                view.user,
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


def _as_json(view: ThreadView, limit: int = TOKEN_LIMIT) -> dict[str, object]:
    from app.cli.recorded import plain
    from app.times import iso

    instants = ("started_at", "registered_at", "last_activity")
    shown = {name: plain(getattr(view, name)) for name in view.__struct_fields__}
    for name in instants:
        micros = getattr(view, name)
        shown[name] = None if micros is None else iso(micros)
    return shown | {"band": view.band(limit)}
