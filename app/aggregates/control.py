"""What is kept about a bot from outside it: the aggregate of the control log's `bot/<name>`.

What concerns no bot is in the stream `installation`, of the same kind. It knows no time.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from app.aggregates.answers import Done, Nothing
from app.aggregates.control_events import BotOpened, OperatorActed
from app.aggregates.stream import Aggregate
from eventstore.codec import Event
from eventstore.types import Micros, StreamName, Version

INSTALLATION: Final = StreamName("installation")
_NO_TIME: Final = Micros(0)


def stream_of(bot: str) -> StreamName:
    """Return the stream about a bot; about none: the installation's."""
    return StreamName(f"bot/{bot}") if bot else INSTALLATION


class ControlState(msgspec.Struct, frozen=True):
    """How the bot was opened last."""

    fingerprint: bytes = b""
    release: str = ""


class Control(Aggregate[ControlState]):
    """A bot as its operators see it."""

    __slots__ = ()

    def __init__(
        self,
        stream: StreamName = INSTALLATION,
        state: ControlState = ControlState(),  # noqa: B008 - frozen
        version: Version = Version(0),  # noqa: B008 - an int
    ) -> None:
        super().__init__(stream, state, version)

    def acted(self, event: OperatorActed) -> Done:
        """Record what an operator asked for."""
        return self._record(event, _NO_TIME)

    def opened(self, event: BotOpened) -> Done | Nothing:
        """Record how a bot was opened, if it was opened otherwise the last time."""
        if (event.fingerprint, event.release) == (self.state.fingerprint, self.state.release):
            return Nothing()
        return self._record(event, _NO_TIME)

    def _evolve(self, event: Event, version: Version, now: Micros) -> ControlState:
        return evolve(self.state, event, version, now)


def evolve(state: ControlState, event: Event, _version: int, _at: int) -> ControlState:
    """Return the state after `event`. Total."""
    if isinstance(event, BotOpened):
        return replace(state, fingerprint=event.fingerprint, release=event.release)
    return state
