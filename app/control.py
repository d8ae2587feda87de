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
from functools import partial
from typing import Final, TypeVar

import msgspec
from pydantic import SecretStr

from app.addresses import without_secrets
from app.aggregates.control import Control, stream_of
from app.aggregates.control_events import CONTROL_EVENTS, BotOpened, OperatorActed
from app.bots import OF_THE_NODE
from app.control_log import decide
from app.settings import Settings
from eventstore.codec import Codec

A = TypeVar("A")
CODEC: Final = Codec(CONTROL_EVENTS)


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
    _decide(installation, bot, lambda control: control.acted(event))
    return by


def opened(installation: Settings, bot: Settings, *, node: str, release: str) -> None:
    """Record how a bot is configured, if that has changed. Raises `LogUnavailable`."""
    shown = configuration(bot)
    digest = hashlib.blake2b(msgspec.json.encode(shown, order="sorted"), digest_size=16).digest()
    changed = {name: value for name, value in shown.items() if value != _default(name)}
    event = BotOpened(bot=bot.bot, release=release, node=node, fingerprint=digest, settings=changed)
    _decide(installation, bot.bot, lambda control: control.opened(event))


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


def _decide(installation: Settings, bot: str, command: Callable[[Control], A]) -> A:
    """Make what `command` decides about a bot durable."""
    blank = partial(Control, stream_of(bot))
    return decide(installation, CODEC, blank, lambda control, _now: command(control))
