"""`hilo control`: the installation's own log: what operators did, how bots were configured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.failures import DONE, CannotReach, codes
from app.cli.options import Bot, Data, Json, group, installation_of

if TYPE_CHECKING:
    from eventstore.codec import Event
    from eventstore.types import Recorded

control = group("control", "The installation's own log, which no restore of a bot rewinds.")


@control.callback()
def _control() -> None:
    pass


@control.command("log", epilog=codes(unreachable="there is no control log"))
def show_log(
    *,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, metavar="N", help="The newest N entries.")
    ] = 20,
    data: Data = None,
    bot: Bot = None,
    as_json: Json = False,
) -> int:
    """Show who did what to which bot and why, and how bots were configured, oldest first.

    With --json one object a line, with every field. --bot shows one bot's entries only.
    """
    from app import stores
    from app.aggregates.access_events import ACCESS_EVENTS
    from app.aggregates.control import stream_of
    from app.aggregates.control_events import CONTROL_EVENTS
    from app.cli import output
    from app.cli.recorded import Presenter
    from app.cli.selection import Selection, newest
    from eventstore.codec import Codec

    settings = installation_of(data, None)
    if not stores.has_control_log(settings):
        msg = f"nothing is recorded yet: {stores.control_place(settings)} holds no control log"
        raise CannotReach(msg)
    log = stores.open_control_log(settings)
    try:
        head = log.head()
        wanted = None if bot is None else stream_of(bot)
        events = newest(log, Selection(stream=wanted), limit=limit, up_to=head.position)
    finally:
        log.close()
    present = Presenter(Codec((*CONTROL_EVENTS, *ACCESS_EVENTS)), head.epoch)
    for event in events:
        shown = output.json_line(present.as_json(event)) if as_json else _line(event)
        output.write(shown)
    return DONE


def _line(recorded: Recorded) -> str:
    from app.aggregates.access_events import ACCESS_EVENTS
    from app.aggregates.control_events import CONTROL_EVENTS
    from app.cli.output import safe, when
    from eventstore.codec import Codec
    from eventstore.errors import UnknownEventType

    try:
        event = Codec((*CONTROL_EVENTS, *ACCESS_EVENTS)).decode(recorded.type, recorded.state)
        told = _told(event)
    except UnknownEventType:
        told = f"{recorded.type}: written by a newer release"
    return safe(f"{recorded.position:>5}  {when(recorded.recorded_at)}  {told}")


def _told(event: Event) -> str:
    from app.aggregates import access_events as a
    from app.aggregates.control_events import BotOpened, OperatorActed

    match event:
        case OperatorActed():
            about = f" {', '.join(event.about)}" if event.about else ""
            why = f": {event.why}" if event.why else ""
            told = f"{event.bot or '-'}  {event.by}  {event.action}{about}{why}"
        case BotOpened():
            changed = ", ".join(f"{name}={value}" for name, value in event.settings.items())
            how = f" with {changed}" if changed else " with the defaults"
            told = f"{event.bot}  {event.node}  opened by {event.release}{how}"
        case a.KeyCreated():
            name = f" ({event.name})" if event.name else ""
            told = f"{event.bot or '-'}  {event.by}  key {event.key} made: {event.role}{name}"
        case a.KeyRevoked():
            told = f"-  {event.by}  key {event.key} revoked: {event.why}"
        case a.KeyUsed():
            told = f"-  key {event.key} was used"
        case _:
            told = type(event).__name__
    return told
