"""`hilo projections`: the read models, how far they are, and making them anew (G7)."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from app.cli.failures import DONE, FOUND, CannotReach, FoundProblem, WrongUsage, codes
from app.cli.options import (
    AsOf,
    Bot,
    Data,
    Force,
    Json,
    Open,
    Output,
    group,
    installation_of,
    opened,
)

if TYPE_CHECKING:
    from app.cli.output import Bar
    from app.installation import Installation
    from app.projections import ModelStatus, ReadModel, Standing, Views

projections = group("projections", "Read models: what the log says, in tables.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A read model of hilo projections list.")]
Why = Annotated[
    str, typer.Option("--why", metavar="TEXT", help="The reason, kept in the control log.")
]
_NOT_BUILT: Final = "there is no log, or the read model is not built yet"
_USAGE: Final = 2  # of the worker
Said = dict[str, Any]  # a line of the worker's


@projections.command("list", epilog=codes(found="a read model has stopped before an event"))
def list_projections(*, data: Data = None, bot: Bot = None, as_json: Json = False) -> int:
    """List the read models: where each is, where the log is, and how many events lie between."""
    from app.cli import output
    from app.cli.views import views_of
    from app.projections import MODELS, models

    with opened(data, bot) as here, views_of(here) as views:
        statuses = models(views, here.log, MODELS)
    parked = [status for status in statuses if status.state == "parked"]
    if as_json:
        output.write_json([_as_json(status) for status in statuses])
    else:
        output.write_table(
            ("name", "state", "version", "position", "head", "lag", "lag seconds"),
            [
                (s.name, _state(s), s.version, s.position, s.head, s.lag, f"{s.lag_seconds:.1f}")
                for s in statuses
            ],
        )
        for status in parked:
            output.remark(f"{status.name} has stopped: {status.error}")
            output.remark(
                f"  upgrade, or: hilo projections skip {status.name} --position N --why TEXT"
            )
        for status in statuses:
            if status.state == "paused":
                output.remark(f"{status.name} is {status.error}")
    return FOUND if parked else DONE


def _state(status: ModelStatus) -> str:
    return status.state if status.built is not None else "not built"


def _as_json(status: ModelStatus) -> dict[str, object]:
    from app.cli.recorded import plain
    from app.times import iso

    shown = {name: plain(getattr(status, name)) for name in status.__struct_fields__}
    updated = None if status.updated_at is None else iso(status.updated_at)
    return shown | {"state": _state(status), "updated_at": updated}


@projections.command(
    epilog=codes(
        found="a read model met an event that it cannot take, or the rebuild did not end",
        unreachable="there is no log, or another rebuild is under way",
    )
)
def rebuild(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A read model of hilo projections list; all if none."),
    ] = None,
    *,
    why: Why = "",
    data: Data = None,
    bot: Bot = None,
    as_json: Json = False,
) -> int:
    """Rebuild read models from the log beside the live ones, and switch when they have caught up.

    The work is done in a process of its own, niced. Interrupted (Ctrl-C), it leaves what is live as
    it is, and the next rebuild goes on where this one ended. A paused read model stays paused.
    """
    from app.cli import output
    from app.control import acted
    from app.projections import MODELS, UnknownModel, named
    from app.projections.bulk import worker_command

    with opened(data, bot) as here:
        try:
            names = [] if name is None else [named(name, MODELS).name]
        except UnknownModel as error:
            raise WrongUsage(str(error)) from None
        bot_named = here.settings.bot
        about = tuple(names) or tuple(model.name for model in MODELS)
        action = "projections rebuild"
        acted(installation_of(data, None), action, bot=bot_named, why=why.strip(), about=about)
        command = worker_command(here.settings.bot_directory, "rebuild", names)
    lines = _run(command)
    models = [
        {"model": m["model"], "position": m["position"], "switched": m["switched"]}
        | {"parked": m["parked"]}
        for m in lines
        if m["event"] == "model"
    ]
    if as_json:
        seconds = next((line["seconds"] for line in lines if line["event"] == "done"), None)
        output.write_json({"models": models, "seconds": seconds})
    else:
        output.write_table(
            ("name", "position", "live", "stopped before"),
            [(m["model"], m["position"], m["switched"], m["parked"] or "") for m in models],
        )
    return FOUND if any(m["parked"] for m in models) else DONE


@projections.command(
    epilog=codes(found="it is parked, which stops it already", unreachable=_NOT_BUILT)
)
def pause(
    name: Name, *, why: Why = "", data: Data = None, bot: Bot = None, as_json: Json = False
) -> int:
    """Stop a read model where it is until hilo projections resume: its rows stay readable.

    The server may be running or not; a pause outlives restarts, releases and rebuilds.
    """
    from app.projections import operating

    with _operated(name, data, bot) as (here, views, model):
        _record(here, "pause", model, why=why, data=data)
        standing = operating.pause(views, model, by=_operator(), why=why.strip())
    return _say(standing, as_json=as_json)


@projections.command(epilog=codes(found="nothing has stopped it", unreachable=_NOT_BUILT))
def resume(
    name: Name, *, why: Why = "", data: Data = None, bot: Bot = None, as_json: Json = False
) -> int:
    """Let a paused read model follow the log again, and a parked one try its event again."""
    from app.projections import operating

    with _operated(name, data, bot) as (here, views, model):
        operating.refuse_to_resume(views, model)  # before it is on record
        _record(here, "resume", model, why=why, data=data)
        standing = operating.resume(views, model)
    return _say(standing, as_json=as_json)


@projections.command(
    epilog=codes(
        found="it is not parked, or not before the append of that event", unreachable=_NOT_BUILT
    )
)
def skip(
    name: Name,
    *,
    position: Annotated[
        int, typer.Option("--position", min=1, metavar="N", help="Position of the event.")
    ],
    why: Annotated[
        str,
        typer.Option(
            "--why",
            metavar="TEXT",
            help='The reason, kept in the control log, as in --why "written by a faulty build".',
        ),
    ],
    data: Data = None,
    bot: Bot = None,
    as_json: Json = False,
) -> int:
    """Let a parked read model pass over one event that it cannot take, for good.

    The control log keeps who did so and why: rebuilds pass over the event, too. Its rows then do
    not count what the event says; the others' do.
    """
    from app.projections import operating
    from app.skips import ControlLedger
    from eventstore.types import Position

    if not why.strip():
        msg = "--why is empty: say why this event may be missing"
        raise WrongUsage(msg)
    with _operated(name, data, bot) as (here, views, model):
        ledger = ControlLedger(installation_of(data, None), here.settings.bot)
        operating.skip(
            views,
            here.log,
            model,
            ledger,
            position=Position(position),
            by=_operator(),
            why=why.strip(),
        )
        standing = views.standings()[model.name]
    return _say(standing, as_json=as_json)


@projections.command(epilog=codes(found="the export did not end", unreachable=_NOT_BUILT))
def export(
    name: Name,
    *,
    table: Annotated[
        str | None,
        typer.Option("--table", metavar="TABLE", help="One of its tables; default: the first."),
    ] = None,
    output: Output = None,
    force: Force = False,
    format_: Annotated[
        Literal["jsonl", "csv", "parquet"],
        typer.Option("--format", metavar="jsonl|csv|parquet", help="Parquet needs hilo[parquet]."),
    ] = "jsonl",
    as_of: AsOf = None,
    opening: Open = False,
    data: Data = None,
    bot: Bot = None,
    as_json: Json = False,
) -> int:
    """Export a read model's table, now or as it was, with the columns of docs/read-models.md.

    One with several tables gives its first, and says which others there are. The client view has
    the names of M003; without --open what is personal in it is masked. With --output a summary is
    printed (--json: as JSON); else stdout holds the rows themselves.
    """
    from app import asof
    from app.cli import output as printing
    from app.cli.export import whole
    from app.exports import table_of
    from app.projections import MODELS, UnknownModel, UnknownTable, named
    from app.projections.bulk import worker_command

    with opened(data, bot) as here:
        try:
            model = named(name, MODELS)
            chosen = table_of(model, table)
        except (UnknownModel, UnknownTable) as error:
            raise WrongUsage(str(error)) from None
        words = worker_command(here.settings.bot_directory, "export", [model.name])
        words += [f"--table={chosen}", f"--format={format_}", *(["--open"] if opening else [])]
        if as_of is not None:
            words.append(f"--position={asof.as_of(here.log, as_of)}")
        own = here.settings.data
    if output is None or str(output) == "-":
        _export(words, None)
    else:
        with whole(output, own, replace=force) as file:
            _export(words, file)
        if as_json:
            printing.write_json({"file": str(output), "name": model.name, "table": chosen})
        else:
            printing.remark(f"the rows of {chosen} are in {output}")
    others = [one for one in model.tables if one != chosen]
    if table is None and others:
        printing.remark(f"these are the rows of {chosen}; --table gives {' or '.join(others)}")
    return DONE


def _export(command: list[str], out: IO[bytes] | None) -> None:
    ended = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, check=False
    )
    if ended.returncode:
        said = ended.stderr.decode(errors="replace").strip().splitlines()
        msg = said[-1] if said else f"the export's process ended with {ended.returncode}"
        raise (WrongUsage if ended.returncode == _USAGE else FoundProblem)(msg)


@contextmanager
def _operated(
    name: str, data: Path | None, bot: str | None
) -> Iterator[tuple[Installation, Views, ReadModel]]:
    """Give the read model of a name, and the file that it is in."""
    from app.projections import MODELS, NotBuilt, UnknownModel, Views, named

    with opened(data, bot) as here:
        try:
            model = named(name, MODELS)
        except UnknownModel as error:
            raise WrongUsage(str(error)) from None
        if not here.views_path.is_file():
            raise NotBuilt(name)
        views = Views(here.views_path)
        try:
            yield here, views, model
        finally:
            views.close()


def _operator() -> str:
    from app.control import operator

    return operator()


def _record(
    here: Installation, verb: str, model: ReadModel, *, why: str, data: Path | None
) -> None:
    from app.control import acted

    bot = here.settings.bot
    about = (model.name,)
    acted(installation_of(data, None), f"projections {verb}", bot=bot, why=why.strip(), about=about)


def _say(standing: Standing, *, as_json: bool) -> int:
    from app.cli import output

    shown = {
        "name": standing.model,
        "state": standing.state,
        "position": standing.cursor.position,
        "error": standing.error,
    }
    if as_json:
        output.write_json(shown)
    else:
        output.write_fields(list(shown.items()))
    return DONE


def _run(command: list[str]) -> list[Said]:
    """Run the worker to its end, showing how far it is; return what it said, progress left out.

    It has a process group of its own: Ctrl-C is ours, and ends it.
    """
    from app.cli import output

    with (
        tempfile.TemporaryFile() as errors,
        output.bar("rebuilding") as progress,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            process_group=0,
        ) as worker,
    ):
        assert worker.stdout is not None  # noqa: S101 - it was asked for
        try:
            lines = _listen(worker.stdout, progress)
        except BaseException:
            worker.terminate()
            raise
        code = worker.wait()
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
    if code == 0 or any(line["event"] == "done" for line in lines):
        return lines
    reason = next((line["error"] for line in lines if line["event"] == "error"), None)
    reason = reason or (said[-1] if said else f"its process ended with {code}")
    msg = f"the rebuild did not end, and what was live is as it was: {reason}"
    raise {2: WrongUsage, 3: CannotReach}.get(code, FoundProblem)(msg)


def _listen(stream: IO[bytes], progress: Bar) -> list[Said]:
    import msgspec

    lines: list[Said] = []
    for text in stream:
        try:
            line = msgspec.json.decode(text, type=Said)
        except msgspec.MsgspecError:  # a line of its technical log
            continue
        if line["event"] == "progress":
            progress.at(line["position"], line["head"])
        else:
            lines.append(line)
    return lines
