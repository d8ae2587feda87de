"""The control log: who did what to which bot and why, and how each bot was configured when.

One for the installation, beside the bots' own logs: DATA/control.db, or the schema `control`. It is
opened for one entry and closed again: entries are rare, and any process may write one.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import socket
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
from pydantic import SecretStr

from app import stores
from app.addresses import without_secrets
from app.aggregates.control import Control, ControlState, evolve, stream_of
from app.aggregates.control_events import CONTROL_EVENTS, BotOpened, OperatorActed
from app.bots import OF_THE_NODE
from app.settings import Settings
from eventstore.codec import Codec
from eventstore.errors import Conflict, EpochMismatch, LogUnavailable, UnknownEventType
from eventstore.store import LogStore
from eventstore.types import Append, Appended, StreamName, Version, new_append_id

A = TypeVar("A")
CODEC: Final = Codec(CONTROL_EVENTS)
_ATTEMPTS: Final = 50


def acted(  # noqa: PLR0913 - what of what, who answers for it and why
    installation: Settings,
    action: str,
    *,
    bot: str,
    why: str = "",
    about: tuple[str, ...] = (),
    by: str | None = None,
) -> str:
    """Record what an operator asks for, before it is done; return who that is.

    Who sits at this terminal, unless `by` names somebody else (the key of a request). Durable on
    return. `about` must not name people but by pseudonyms. Raises `LogUnavailable` if it cannot be
    recorded: then it is not to be done.
    """
    by = by or f"{operator()}@{socket.gethostname()}"
    event = OperatorActed(action=action, by=by, bot=bot, why=why, about=about)
    _decide(installation, stream_of(bot), lambda control: control.acted(event))
    return by


def opened(installation: Settings, bot: Settings, *, node: str, release: str) -> None:
    """Record how a bot is configured, if that has changed. Raises `LogUnavailable`."""
    shown = configuration(bot)
    digest = hashlib.blake2b(msgspec.json.encode(shown, order="sorted"), digest_size=16).digest()
    changed = {name: value for name, value in shown.items() if value != _default(name)}
    event = BotOpened(bot=bot.bot, release=release, node=node, fingerprint=digest, settings=changed)
    _decide(installation, stream_of(bot.bot), lambda control: control.opened(event))


def configuration(bot: Settings) -> dict[str, str]:
    """Return a bot's settings as text, but for secrets and what is the node's."""
    return {
        name: without_secrets(str(getattr(bot, name)))
        for name, field in Settings.model_fields.items()
        if name not in OF_THE_NODE and field.annotation is not SecretStr
    }


def operator() -> str:
    """Return the name of the operating system's user; their number if they have no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _default(name: str) -> str:
    return without_secrets(str(Settings.model_fields[name].get_default()))


def _decide(installation: Settings, stream: StreamName, command: Callable[[Control], A]) -> A:
    """Make what `command` decides durable; asked again if somebody else was first."""
    log = stores.open_control_log(installation)
    try:
        for _ in range(_ATTEMPTS):
            control = _load(log, stream)
            expected = control.version
            answer = command(control)
            events = tuple(CODEC.encode(event, key) for event, key in control.collect_events())
            if not events:
                return answer
            append = Append(stream, expected, events, log.head().epoch, new_append_id())
            (done,) = log.append_batch([append])
            if isinstance(done, Appended):
                return answer
            if not isinstance(done, Conflict | EpochMismatch):
                raise done
    finally:
        log.close()
    msg = f"{stream} of the control log is written too fast to decide upon: try again"
    raise LogUnavailable(msg)


def _load(log: LogStore, stream: StreamName) -> Control:
    state, version = ControlState(), Version(0)
    for recorded in log.read_stream(stream):
        version = recorded.version
        try:
            event = CODEC.decode(recorded.type, recorded.state)
        except UnknownEventType:  # of a newer release: it decides nothing here
            continue
        state = evolve(state, event, version, recorded.recorded_at)
    return Control(stream, state, version)
