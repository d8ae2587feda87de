"""`hilo log`: look at the log itself. Nothing here writes to it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.cli.failures import DONE, FoundProblem, WrongUsage, codes
from app.cli.options import (
    AsOf,
    Bot,
    Data,
    Force,
    Json,
    Open,
    Output,
    Types,
    User,
    Who,
    group,
    opened,
)
from app.times import iso

if TYPE_CHECKING:
    from app.cli.export import Export
    from app.cli.recorded import Presenter
    from app.cli.selection import Selection
    from app.installation import Installation
    from eventstore.types import Cursor, Position, Recorded

log = group("log", "Browse, follow and export the log: every event, as it was recorded.")

_TYPE_WIDTH = 20
_WHO_WIDTH = 25
_SHORT_WHO = 8

Raw = Annotated[bool, typer.Option("--raw", help="Every field as it was recorded, ids whole.")]
After = Annotated[
    int | None,
    typer.Option("--after", min=0, metavar="POS", help="Only events after this position."),
]


@log.command(
    epilog=codes(found="the log was restored or replaced while it was followed"),
)
def tail(
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new events until Ctrl-C.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=0,
            metavar="N",
            help="How many events to begin with: the newest 20, or with --after all.",
            show_default=False,
        ),
    ] = None,
    types: Types = None,
    user: User = None,
    after: After = None,
    as_of: AsOf = None,
    opening: Open = False,
    raw: Raw = False,
    data: Data = None,
    bot: Bot = None,
    as_json: Json = False,
) -> int:
    """Show the newest events, oldest first, one a line; with --json one JSON object a line.

    A line: position, time (UTC), person (the first letters of the pseudonym, which USER takes,
    too), type, and what happened in words. --raw shows every field instead: cor is the run that an
    event belongs to, cau the version of the event that caused it; at and other instants are µs
    since 1970.
    """
    from app import asof
    from app.cli.selection import refuse_beyond, select

    if follow and as_of is not None:
        msg = "--follow goes on with what is new and --as-of ends in the past: give one of them"
        raise WrongUsage(msg)
    with opened(data, bot) as here:
        wanted = select(here, types, user)
        start = refuse_beyond(here.log, after, "--after")
        end = asof.as_of(here.log, as_of)
        seen = here.log.cursor_at(end)
        show = _Lines(here, as_json=as_json, raw=raw, opening=opening)
        begin = None if after is None else start
        _show_first(here, wanted, show, after=begin, up_to=end, limit=limit)
        if follow:
            _follow(here, wanted, show, seen)
    return DONE


class _Lines:
    """Prints events one a line: for people, with every field, or as JSON."""

    def __init__(self, here: Installation, *, as_json: bool, raw: bool, opening: bool) -> None:
        from app.cli.recorded import Presenter

        sealer = here.sealer if opening else None
        self._present: Presenter = Presenter(here.codec, here.log.head().epoch, sealer)
        self._line = self._json if as_json else self._raw if raw else self._worded
        if not (as_json or raw) and sys.stdout.isatty():
            _explain(opening=opening)

    def __call__(self, event: Recorded) -> None:
        from app.cli.output import write

        write(self._line(event))

    def _json(self, event: Recorded) -> str:
        from app.cli.output import json_line

        return json_line(self._present.as_json(event))

    def _raw(self, event: Recorded) -> str:

        who = event.stream.removeprefix("user/")
        return (
            f"{event.position:>9} {iso(event.recorded_at)} {who:<{_WHO_WIDTH}} "
            f"{event.type:<{_TYPE_WIDTH}} {self._present.as_text(event)}".rstrip()
        )

    def _worded(self, event: Recorded) -> str:
        from app.cli.output import when

        _, is_user, person = event.stream.partition("user/")
        who = person[:_SHORT_WHO] if is_user else event.stream
        return (
            f"{event.position:>7}  {when(event.recorded_at)}  {who:<{_SHORT_WHO}}  "
            f"{event.type:<{_TYPE_WIDTH}}  {self._present.as_words(event)}".rstrip()
        )


def _explain(*, opening: bool) -> None:
    """Say to a person at a terminal what the columns are, and what shows more."""
    from app.cli.output import remark

    more = "" if opening else "texts of people are «sealed»: --open shows them. "
    remark(f"{'#':>7}  {'time (UTC)':<24}  {'person':<8}  {'event':<20}  what happened")
    remark(f"{'':>7}  {more}--raw: every field. --json: for programs.")


def _show_first(
    here: Installation,
    wanted: Selection,
    show: _Lines,
    *,
    after: Position | None,
    up_to: Position,
    limit: int | None,
) -> None:
    from app.cli.selection import newest, pages

    head = up_to
    if after is None:
        for event in newest(here.log, wanted, limit=20 if limit is None else limit, up_to=head):
            show(event)
        return
    left = limit
    for _, page in pages(here.log, wanted, after=after, up_to=head):
        for event in page if left is None else page[:left]:
            show(event)
        if left is not None and (left := left - len(page)) <= 0:
            return


def _follow(here: Installation, wanted: Selection, show: _Lines, seen: Cursor) -> None:
    from eventstore.subscription import Subscription

    sys.stdout.flush()
    for batch in Subscription(here.log, after=seen, types=wanted.types):
        for event in batch.events:
            if wanted.takes(event):
                show(event)
        sys.stdout.flush()


@log.command(epilog=codes(found="no such user", unreachable="there is no log, or no key to open"))
def show(
    who: Who,
    *,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=0, metavar="N", help="Only the newest N events."),
    ] = None,
    as_of: AsOf = None,
    opening: Open = False,
    raw: Raw = False,
    data: Data = None,
    bot: Bot = None,
    as_json: Json = False,
) -> int:
    """Show the timeline of one user: every event of their stream, oldest first.

    The lines are those of hilo log tail.
    """
    from app import asof
    from app.cli.selection import Selection, newest, pages
    from eventstore.types import Position

    with opened(data, bot) as here:
        wanted = Selection(stream=here.stream_of(who))
        print_event = _Lines(here, as_json=as_json, raw=raw, opening=opening)
        head = asof.as_of(here.log, as_of)
        if limit is not None:
            for event in newest(here.log, wanted, limit=limit, up_to=head):
                print_event(event)
            return DONE
        for _, page in pages(here.log, wanted, after=Position(0), up_to=head):
            for event in page:
                print_event(event)
    return DONE


@log.command(epilog=codes())
def stats(*, data: Data = None, bot: Bot = None, as_json: Json = False) -> int:
    """Count the log: where it ends, events by type, streams, bytes, first and last time.

    `bytes` are those of the database's pages, indexes included; `wal_bytes` is the write-ahead log
    beside them, through which every page goes and whose size says nothing about the events.
    """
    from app.cli import output
    from app.stores import wal_bytes
    from eventstore.types import Position

    with opened(data, bot) as here:
        head = here.log.head()
        by_type = here.log.count_by_type()
        streams = sum(1 for _ in here.log.streams())
        users = sum(1 for _ in here.log.streams("user/"))
        first = here.log.event_at(Position(1))
        size = here.log.size()
        wal_size = wal_bytes(here.settings)
    answer: dict[str, object] = {
        "log": here.log_place,
        "epoch": head.epoch,
        "position": head.position,
        "streams": streams,
        "users": users,
        "bytes": size,
        "wal_bytes": wal_size,
        "bytes_per_event": size // head.position if head.position else None,
        "first_at": iso(first.recorded_at) if first else None,
        "last_at": iso(head.recorded_at) if first else None,
    }
    if as_json:
        output.write_json(answer | {"types": by_type})
        return DONE
    if first:
        answer |= {
            "first_at": output.when(first.recorded_at),
            "last_at": output.when(head.recorded_at),
        }
    output.write_fields([(name.replace("_", " "), value) for name, value in answer.items()])
    if by_type:
        output.write("")
        output.write_table(("type", "events"), list(by_type.items()))
    return DONE


@log.command(
    epilog=codes(
        found="a sealed field could not be opened although nobody was forgotten, or the log was "
        "restored meanwhile",
        unreachable="there is no log, no key to open, or no room for the whole FILE",
    )
)
def export(
    *,
    output: Output = None,
    force: Force = False,
    after: After = None,
    up_to: Annotated[
        int | None,
        typer.Option("--up-to", min=0, metavar="POS", help="Only events up to this position."),
    ] = None,
    types: Types = None,
    user: User = None,
    format_: Annotated[
        Literal["jsonl", "csv", "parquet"],
        typer.Option(
            "--format",
            metavar="jsonl|csv|parquet",
            help="CSV and Parquet have the state as JSON text; Parquet needs hilo[parquet].",
        ),
    ] = "jsonl",
    opening: Open = False,
    data: Data = None,
    bot: Bot = None,
    as_json: Json = False,
) -> int:
    """Export events, as JSONL one a line, oldest first, up to where the log ends now.

    With --output a summary is printed (--json: as JSON); else stdout holds the events themselves.
    Without --open sealed fields stay sealed. POS must not separate events of one append.

    Each line, as in log tail --json and log show --json, has position, epoch, stream, version,
    type, recorded_at (ISO 8601, UTC), key and append_id (hex) and state: the event's fields, bytes
    as base64, a sealed field as {"sealed": …} or, opened, as its value.
    """
    from app.cli.export import Export
    from app.cli.selection import refuse_beyond, refuse_cut, select

    with opened(data, bot) as here:
        wanted = select(here, types, user)
        start = refuse_beyond(here.log, after, "--after")
        end = refuse_beyond(here.log, up_to, "--up-to") if up_to is not None else None
        refuse_cut(here.log, start, "--after")
        if end is not None:
            refuse_cut(here.log, end, "--up-to")
            if end < start:
                msg = f"--up-to {end} is before --after {start}"
                raise WrongUsage(msg)
        job = Export(here, wanted, after=start, up_to=end, opening=opening, format_=format_)
        if output is None or str(output) == "-":
            job.to_stdout()
        else:
            job.to_file(output, replace=force)
            _summary(job, output, as_json=as_json)
        _complain(job.presenter)
    return DONE


def _summary(job: Export, path: Path, *, as_json: bool) -> None:
    from app.cli import output

    if as_json:
        output.write_json(
            {"file": str(path), "events": job.count, "after": job.after, "up_to": job.up_to}
        )
    else:
        output.write(
            f"{job.count} events of the positions {job.after + 1} to {job.up_to} are in {path}"
        )


def _complain(presenter: Presenter) -> None:
    """Raise `FoundProblem` for keys that are gone without having been destroyed on purpose."""
    lost = sum(
        count
        for reason, count in presenter.unopened.items()
        if reason not in {"forgotten", "expired"}
    )
    if lost:
        msg = (
            f"{lost} sealed fields could not be opened and nobody was forgotten: restore keys.db "
            "from its backup (they are exported sealed)"
        )
        raise FoundProblem(msg)
