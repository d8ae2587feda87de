"""`hilo import`: what exists before Hilo, brought into the log (A17)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.cli.failures import DONE, FOUND, CannotReach, WrongUsage, codes
from app.cli.options import Bot, Data, Json, settings_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from app.cli.output import Bar
    from app.conversation.facts import Person
    from app.importing.importer import Importer
    from app.importing.records import ChatFile, ClientFile, Rejected
    from app.installation import Installation
    from app.settings import Settings

CODES = codes(
    found="something in a file could not be read; the rest was imported",
    unreachable="the log or the keys cannot be written, or a file cannot be read",
)

_SHOWN = 20
"""Rejects that are printed; with --json all of them are."""

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE…",
        help="threads-data.json, threads.json (.backup, -<time>), guest-memory.json, or a chat "
        "that WhatsApp exported as .txt",
    ),
]


def import_files(
    files: Files,
    *,
    user: Annotated[
        str | None,
        typer.Option(
            "--user",
            metavar="NUMBER",
            help="With whom the exported chat is: a phone number or a lid (…@lid); needed unless "
            "the file's name tells.",
        ),
    ] = None,
    me: Annotated[
        str | None,
        typer.Option("--me", metavar="NAME", help="The business's name in the exported chat."),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(
            "--timezone",
            metavar="ZONE",
            help="Zone of the phone that exported the chat, as America/Bogota.",
        ),
    ] = None,
    date_order: Annotated[
        Literal["dmy", "mdy", "ymd"] | None,
        typer.Option(
            "--date-order", help="How the export writes dates; told by the dates if not given."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and compare everything, write nothing.")
    ] = False,
    data: Data = None,
    bot: Bot = None,
    as_json: Json = False,
) -> int:
    """Bring what exists before Hilo into the log: thread files, guest memory, exported chats.

    Each fact is recorded with its original time, nothing is answered, and a second import of the
    same file records nothing. A server may be running or not.
    """
    settings = settings_of(data, bot)
    zone = _zone(timezone)
    clients, chats = _read_all(files, zone, date_order)
    people = [_partner(chat, user, me) for chat in chats]
    with _opened(settings, dry_run=dry_run) as here:
        from app.cli.output import bar

        with bar("importing", None, shown=not as_json) as progress:
            importer = _importer(here, progress, dry_run=dry_run)
            for file in sorted(clients, key=lambda file: file.taken_at or _LATEST):
                importer.clients(file)
            for chat, (person, us) in zip(chats, people, strict=True):
                importer.chat(chat, person, us=us)
    lost = [file.rejected for file in clients] + [file.rejected for file in chats]
    rejected = [one for some in lost for one in some]
    _report(importer, chats, rejected, dry_run=dry_run, as_json=as_json)
    return FOUND if rejected else DONE


_LATEST = 2**62
"""A file whose name tells no time is the present."""


def _read_all(
    files: Sequence[Path], zone: tzinfo | None, order: Literal["dmy", "mdy", "ymd"] | None
) -> tuple[list[ClientFile], list[ChatFile]]:
    """Read every file before anything is written. Raises `WrongUsage` or `CannotReach`."""
    from app.importing.legacy_json import read_clients
    from app.importing.records import Unreadable
    from app.importing.whatsapp_txt import read_chat

    clients, chats = [], []
    for path in files:
        try:
            content = path.read_bytes()
            if path.suffix.lower() == ".txt":
                if zone is None:
                    msg = f"{path.name}: say --timezone: an export holds a phone's local times"
                    raise WrongUsage(msg)
                chats.append(read_chat(content, path.name, zone=zone, date_order=order))
            else:
                clients.append(read_clients(content, path.name))
        except OSError as error:
            msg = f"cannot read {path}: {error.strerror}"
            raise CannotReach(msg) from None
        except Unreadable as error:
            raise WrongUsage(str(error)) from None
    return clients, chats


def _zone(name: str | None) -> tzinfo | None:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        msg = f"--timezone {name}: no such zone; give one as America/Bogota"
        raise WrongUsage(msg) from None


def _partner(chat: ChatFile, user: str | None, me: str | None) -> tuple[Person, str | None]:
    """Return with whom the chat is, and under which name the business wrote in it."""
    person = _person(user) if user is not None else _named(chat.file)
    if person is None:
        msg = f"{chat.file}: say --user NUMBER: with whom the chat is"
        raise WrongUsage(msg)
    if not chat.lines:
        reasons = "; ".join(map(str, chat.rejected[:_SHOWN]))
        msg = f"{chat.file}: not one of its messages can be used: {reasons}"
        raise WrongUsage(msg)
    authors = chat.authors()
    if me is not None and me not in authors:
        msg = f"{chat.file}: nobody is called {me!r} in it; there are: {', '.join(authors)}"
        raise WrongUsage(msg)
    others = [author for author in authors if author != me]
    if len(others) > 1:
        says = "say --me NAME" if me is None else "it looks like a group, which is not imported"
        msg = f"{chat.file}: several people wrote ({', '.join(others)}): {says}"
        raise WrongUsage(msg)
    return person, me


def _person(text: str) -> Person:
    from app.conversation.facts import Person

    number, _, server = text.partition("@")
    digits = re.sub(r"[\s().+-]", "", number)
    if not digits.isascii() or not digits.isdigit():
        msg = f"--user {text}: give a phone number with its country code, or a lid (…@lid)"
        raise WrongUsage(msg)
    return Person(lid=digits) if server == "lid" else Person(phone=digits)


def _named(file: str) -> Person | None:
    """Return whom a file's name tells, as in "WhatsApp Chat with +1 555 010 0001.txt"."""
    from app.conversation.facts import Person

    found = re.search(r"\+\d[\d\s().-]{6,}\d", file)
    return Person(phone=re.sub(r"\D", "", found[0])) if found else None


@contextmanager
def _opened(settings: Settings, *, dry_run: bool) -> Iterator[Installation]:
    """Give the bot; its log and keys are made if this is the first thing that it sees.

    A dry run of nothing at all compares with a log that is empty, elsewhere.
    """
    from pydantic import SecretStr

    from app import stores
    from app.installation import Installation

    with ExitStack() as stack:
        if not stores.has_log(settings):
            if dry_run:
                elsewhere = Path(stack.enter_context(TemporaryDirectory(prefix="hilo-import-")))
                settings = settings.model_copy(
                    update={"data": elsewhere, "database_url": SecretStr("")}
                )
            stores.open_log(settings, server=True).close()
            stores.open_keyring(settings).close()
        yield stack.enter_context(Installation(settings))


def _importer(here: Installation, progress: Bar, *, dry_run: bool) -> Importer:
    from app.cli.replay import decide, user_of
    from app.importing.importer import Importer

    return Importer(
        log=here.log,
        keyring=here.keyring,
        sealer=here.sealer,
        decide=lambda stream, command: decide(here, stream, command),
        look=lambda stream: user_of(here, stream),
        dry=dry_run,
        told=progress.at,
    )


def _report(
    importer: Importer,
    chats: Sequence[ChatFile],
    rejected: Sequence[Rejected],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    import msgspec

    from app.cli import output

    done = msgspec.to_builtins(importer.counts)
    if as_json:
        dates = {c.file: {"order": c.date_order, "assumed": c.assumed_order} for c in chats}
        output.write_json({"dry_run": dry_run, **done, "dates": dates, "rejected": list(rejected)})
        return
    output.write_fields([*done.items(), ("rejected", len(rejected))])
    for one in rejected[:_SHOWN]:
        output.remark(str(one))
    if len(rejected) > _SHOWN:
        output.remark(f"… and {len(rejected) - _SHOWN} more: --json lists all")
    for chat in chats:
        if chat.assumed_order:
            output.remark(
                f"{chat.file}: no date tells day from month; read as {chat.date_order}. "
                "If that is wrong, say --date-order, before anything is imported (--dry-run)"
            )
    if dry_run:
        output.remark("nothing was written: this was a dry run")


__all__ = ["CODES", "import_files"]
