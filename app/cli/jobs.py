"""`hilo jobs`: what the fleet does by the clock, how it went, and doing it now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli.failures import DONE, FOUND, CannotReach, WrongUsage, codes
from app.cli.options import Bot, Data, Json, group, opened

if TYPE_CHECKING:
    from app.aggregates.jobs import Job
    from app.installation import Installation
    from eventstore.types import StreamName

jobs = group("jobs", "Jobs of the fleet: each runs once when it is due, on one of the nodes.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A job, as hilo jobs list names it.")]
_ATTEMPTS: Final = 20


@jobs.command("list", epilog=codes(found="the last run of a job failed or was given up"))
def list_jobs(*, data: Data = None, bot: Bot = None, as_json: Json = False) -> int:
    """List the jobs: when each is due, when it ran last, where, and how that ended."""
    from app.cli import output

    with opened(data, bot) as here:
        rows = [_row(here, name, when) for name, when in _calendar(here).items()]
    if as_json:
        output.write_json({"jobs": rows})
    else:
        output.write_rows([_readable(row) for row in rows])
    return FOUND if any(row["outcome"] in {"failed", "given up"} for row in rows) else DONE


@jobs.command(epilog=codes(unreachable="there is no log, or it cannot be written"))
def run(name: Name, *, data: Data = None, bot: Bot = None, as_json: Json = False) -> int:
    """Let a job run now, besides its schedule: a node that lives does it, within seconds.

    The log names the user of this machine who asked for it. Without a node it runs when one starts.
    """
    from app.cli import output
    from app.control import operator

    with opened(data, bot) as here:
        if name not in _calendar(here):
            msg = f"there is no job {name!r}: one of {', '.join(_calendar(here))}"
            raise WrongUsage(msg)
        version = _request(here, name, operator())
    if as_json:
        output.write_json({"job": name, "version": version})
    else:
        output.remark(f"{name} was asked for: see hilo jobs list")
    return DONE


def _calendar(here: Installation) -> dict[str, object]:
    from app.jobs.calendar import calendar

    return dict(calendar(here.settings.timezone))


def _stream(name: str) -> StreamName:
    from app.aggregates.jobs import JOBS_PREFIX
    from eventstore.types import StreamName

    return StreamName(JOBS_PREFIX + name)


def _job(here: Installation, name: str) -> Job:
    from app.aggregates.jobs import BLANK, Job, evolve
    from eventstore.types import Version

    stream, state, version = _stream(name), BLANK, Version(0)
    for row in here.log.read_stream(stream):
        state = evolve(state, here.codec.decode(row.type, row.state), row.version, row.recorded_at)
        version = row.version
    return Job(stream, state, version)


def _row(here: Installation, name: str, when: object) -> dict[str, object]:
    from app.times import iso

    state = _job(here, name).state
    running = state.running
    return {
        "name": name,
        "when": str(when),
        "slot": iso(state.slot) if state.slot else None,
        "running on": running.node if running is not None else None,
        "ended": iso(state.ended_at) if state.ended_at else None,
        "outcome": state.outcome or None,
        "says": state.says or None,
    }


def _readable(row: dict[str, object]) -> dict[str, object]:
    from app.cli.output import readable

    times = {name: row[name] and readable(str(row[name])) for name in ("slot", "ended")}
    return {**row, **times}


def _request(here: Installation, name: str, by: str) -> int:
    """Append the request, and again if a node appended meanwhile; return its version."""
    from eventstore.errors import Conflict
    from eventstore.types import Append, new_append_id
    from eventstore.writer import Writer

    writer = Writer(here.log)
    try:
        for _ in range(_ATTEMPTS):
            job = _job(here, name)
            expected = job.version
            job.request(by, now=here.log.now())
            events = tuple(here.codec.encode(event) for event, _ in job.collect_events())
            append = Append(_stream(name), expected, events, here.log.head().epoch, new_append_id())
            try:
                return writer.append_blocking(append).version
            except Conflict:
                continue
    finally:
        writer.close()
    msg = f"the job {name} never holds still: try again"
    raise CannotReach(msg)
