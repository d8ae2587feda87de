"""Who holds the turn: what decisions about threads and about runs have in common."""

from __future__ import annotations

from app.aggregates.answers import RunSuperseded
from app.aggregates.stream import Aggregate
from app.aggregates.user_state import UserState


class RunHolder(Aggregate[UserState]):
    """A user of whom one run, or none, holds the turn."""

    __slots__ = ()

    def _holds(self, run: str) -> bool:
        current = self.state.run
        return current is not None and current.id == run

    def _superseded(self, run: str) -> RunSuperseded:
        current = self.state.run
        return RunSuperseded(run, None if current is None else current.id)
