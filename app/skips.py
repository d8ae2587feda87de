"""What read models skip, kept in the control log: no restore, and no lost `views.db`, forgets it.

An entry is an `OperatorActed` of the action `projections skip`, about the model, the position and
the leaf hash of the event.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app import stores
from app.aggregates.control import stream_of
from app.aggregates.control_events import OperatorActed
from app.control import CODEC, acted
from app.projections.skipping import Skip
from app.settings import Settings
from eventstore.errors import UnknownEventType
from eventstore.types import Position, Recorded

ACTION: Final = "projections skip"


class ControlLedger:
    """The skips of one bot's read models: a `SkipLedger`."""

    def __init__(self, installation: Settings, bot: str, *, by: str | None = None) -> None:
        """Use the control log of an installation; nothing is opened before it is needed.

        `by` names who skips, where it is not who sits at this terminal.
        """
        self._by = by
        self._installation = installation
        self._bot = bot

    def record(self, skip: Skip) -> None:
        """Record a skip as somebody's act. Raises `LogUnavailable`."""
        about = (skip.model, str(skip.position), skip.leaf.hex())
        acted(self._installation, ACTION, bot=self._bot, why=skip.why, about=about, by=self._by)

    def recorded(self) -> Sequence[Skip]:
        """Return every skip, oldest first. Raises `LogUnavailable`."""
        if not stores.has_control_log(self._installation):
            return []
        log = stores.open_control_log(self._installation)
        try:
            entries = log.read_stream(stream_of(self._bot))
        finally:
            log.close()
        return [skip for entry in entries if (skip := _skip(entry)) is not None]


def _skip(entry: Recorded) -> Skip | None:
    try:
        event = CODEC.decode(entry.type, entry.state)
    except UnknownEventType:  # of a newer release
        return None
    if not isinstance(event, OperatorActed) or event.action != ACTION:
        return None
    model, position, leaf = event.about
    at = entry.recorded_at
    return Skip(model, Position(int(position)), bytes.fromhex(leaf), event.by, event.why, at)
