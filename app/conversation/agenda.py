"""When this node visits a stream: at once, later, or not at all, because it is another's.

Work spreads over the nodes without a coordinator. For each stream all nodes agree on an order of
themselves (`rendezvous`). The first visits it when it is due. The others note a later time, each a
different one: whoever comes to it and finds the turn still unclaimed has a free hand while the
first has none, or is dead, and claims it. So hardly ever do two nodes claim the same turn, and a
turn waits for nobody in particular.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from app.aggregates.answers import BufferPolicy
from app.aggregates.open_work import Delivery, Run
from app.aggregates.user_state import UserState
from app.aggregates.user_thread import ACTIVITY_DELAY, activity_due_at
from app.aggregates.user_turn import due_at
from app.conversation.policy import SECOND
from eventstore.types import Micros, StreamName

GRACE = 2 * SECOND
"""µs after the due time at which the second in the order helps out."""

Open = Literal["work", "record", "nothing"]
"""What is open on a stream: a turn or its reply; nothing but the record of an activity; nothing."""

STEP = SECOND
"""µs after it at which the next one does, and so on."""


class Members(Protocol):
    """What an agenda asks of `Nodes`."""

    def is_mine(self, node: str, incarnation: str) -> bool:
        """Tell whether this very process holds the lease."""

    def is_alive(self, node: str, incarnation: str) -> bool:
        """Tell whether that incarnation lives."""

    def rank(self, name: str) -> int:
        """Return how many living nodes come before this one for a name."""


class Agenda:
    """Decides about times; does nothing, and never waits."""

    def __init__(
        self,
        nodes: Members,
        *,
        now: Callable[[], Micros],
        buffer: BufferPolicy,
        delivery_due: Callable[[Delivery], int],
        activity: int = ACTIVITY_DELAY,
    ) -> None:
        """`delivery_due` tells when an open delivery can go on (µs).

        `activity`: how long after the last event the client view is moved (µs).
        """
        self._nodes = nodes
        self._now = now
        self._buffer = buffer
        self._delivery_due = delivery_due
        self._activity = activity
        self._helps: dict[StreamName, tuple[int, int, int]] = {}
        """Of others' streams that were overdue: when they were due, our rank, when we come. Who is
        first may never come (it is full, or of an older release): looking again puts nothing off.
        """

    def due_at(self, stream: StreamName, state: UserState) -> int | None:
        """Return when this node should visit the stream (µs); None: not of itself.

        What a living node holds is its own affair. A run of this very process is at work, or was
        put off: `Recovery` notices.
        """
        holder = holder_of(state)
        if holder is None:
            return self._in_order(stream, self._next(state))
        delivered = self._delivery_due(holder) if isinstance(holder, Delivery) else None
        if self._nodes.is_mine(holder.node, holder.incarnation):
            return delivered
        if self.is_held(state):
            return None
        return self._in_order(stream, delivered or 0)

    def _next(self, state: UserState) -> int | None:
        """Return when the turn is due, or the record of the activity if that is earlier."""
        turn, activity = due_at(state, self._buffer), activity_due_at(state, self._activity)
        if turn is None or activity is None:
            return activity if turn is None else turn
        return min(turn, activity)

    def is_activity_due(self, state: UserState) -> bool:
        """Tell whether it is time to record the activity."""
        due = activity_due_at(state, self._activity)
        return due is not None and due <= self._now()

    def is_held(self, state: UserState) -> bool:
        """Tell whether a living node other than this process is at work on the stream."""
        holder = holder_of(state)
        if holder is None or not holder.node:
            return False
        if self._nodes.is_mine(holder.node, holder.incarnation):
            return False
        return self._nodes.is_alive(holder.node, holder.incarnation)

    def _in_order(self, stream: StreamName, due: int | None) -> int | None:
        """Return when it is this node's turn to look after what anybody may take.

        From now on, if it is overdue: or all would come at once to what waited for long.
        """
        noted = self._helps.pop(stream, None) if self._helps else None
        rank = 0 if due is None else self._nodes.rank(stream)
        if due is None or rank == 0:
            return due
        now, later = self._now(), GRACE + (rank - 1) * STEP
        if due > now:
            return due + later
        if noted is None or noted[:2] != (due, rank) or noted[2] <= now:
            noted = (due, rank, now + later)
        self._helps[stream] = noted
        return noted[2]


def open_work(state: UserState, due_at: int | None) -> Open:
    """Return what of a state waits for this node, or for any, that has `due_at` for it."""
    if state.pending or state.run is not None or state.delivery is not None:
        return "work"
    return "nothing" if due_at is None else "record"


def holder_of(state: UserState) -> Run | Delivery | None:
    """Return what somebody holds in the stream: the run, or else the delivery of a reply."""
    return state.run or state.delivery
