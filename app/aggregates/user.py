"""One WhatsApp user: the aggregate of a stream `user/<pseudonym>`.

Decisions are pure. They take facts and the log's time, answer with one of a small closed set
(`app.aggregates.answers`) and trigger events, which are applied at once and collected by the
repository. What the user is at a version follows from the events alone (`user_state.evolve`).
"""

from __future__ import annotations

from app.aggregates.user_delivery import UserDelivery
from app.aggregates.user_facts import UserFacts
from app.aggregates.user_import import UserImport
from app.aggregates.user_state import BLANK, UserState, evolve
from app.aggregates.user_thread import UserThread
from app.aggregates.user_turn import UserTurn
from eventstore.codec import Event
from eventstore.types import Micros, StreamName, Version


class User(UserFacts, UserThread, UserTurn, UserDelivery, UserImport):
    """A user, ready to decide.

    `read_only` says that the stream holds events of a newer release: facts are recorded,
    everything else raises `ReadOnlyUser`.
    """

    __slots__ = ()

    def __init__(
        self,
        stream: StreamName,
        state: UserState = BLANK,
        version: Version = Version(0),  # noqa: B008 - an int
        *,
        read_only: bool = False,
    ) -> None:
        super().__init__(stream, state, version, read_only=read_only)

    def _evolve(self, event: Event, version: Version, now: Micros) -> UserState:
        return evolve(self.state, event, version, now)
