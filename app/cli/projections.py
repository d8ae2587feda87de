"""`hilo projections`: the read models, how far they are, and making them anew (G7)."""

from __future__ import annotations

import subprocess
import tempfile
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from app.cli.failures import DONE, FOUND, CannotReach, FoundProblem, WrongUsage, codes
from app.cli.options import Bot, Data, Json, group, installation_of, opened

if TYPE_CHECKING:
    from app.cli.output import Bar
    from app.projections import ModelStatus

projections = group("projections", "Read models: what the log says, in tables.")

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
    why: Annotated[
        str, typer.Option("--why", metavar="TEXT", help="The reason, kept in the control log.")
    ] = "",
    data: Data = None,
    bot: Bot = None,
    as_json: Json = False,
) -> int:
    """Rebuild read models from the log beside the live ones, and switch when they have caught up.

    The work is done in a process of its own, niced; it may be interrupted and started again.
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
